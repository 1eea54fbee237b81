//! `request`: one HTTP request to Envoy's admin interface or to the agent.
//! Prints the body and nothing else, because programs read it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use names::port;
use runtime::tasks::Tasks;

use crate::config::args::Request;
use crate::envoy::admin::Local;

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Ports that may be asked.
const PORTS: [u16; 4] = [port::ENVOY_ADMIN, 15004, port::AGENT_STATUS, port::ENVOY_HEALTH];

/// Sends the request and prints the answer.
///
/// # Errors
/// When there is none, or it says that something is wrong.
pub async fn run(args: &Request) -> anyhow::Result<()> {
    if !PORTS.contains(&args.debug_port) {
        bail!("--debug-port {}: expected one of {PORTS:?}", args.debug_port);
    }
    let method: Method = args.method.parse().with_context(|| format!("method {:?}", args.method))?;
    let path = format!("/{}", args.path.trim_start_matches('/'));
    let server = Local { port: args.debug_port, tasks: Tasks::new() };
    let (status, body) = server.call(method, &path, Bytes::from(args.body.clone()), TIMEOUT).await?;
    if status.as_u16() > 399 && status != StatusCode::NOT_FOUND {
        bail!(
            "received unsuccessful status code {}: {}",
            status.as_u16(),
            String::from_utf8_lossy(&body).trim()
        );
    }
    std::io::stdout().lock().write_all(&body).context("print the answer")
}
