//! `wait`: until Envoy is ready, so that an application may start after it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use runtime::tasks::Tasks;
use tokio::time::{Instant, sleep};

use crate::config::args::Wait;
use crate::envoy::admin::Local;

/// Between two tries at the beginning: Envoy is usually ready soon, and a pod waits for it.
const SOON: Duration = Duration::from_millis(50);
/// How long the tries stay that close.
const EAGER: Duration = Duration::from_secs(5);

/// Waits until the URL answers 200.
///
/// # Errors
/// When it does not in time, with what it last said.
pub async fn run(args: &Wait) -> anyhow::Result<()> {
    let uri: Uri = args.url.parse().with_context(|| format!("--url {:?}", args.url))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if !["localhost", "127.0.0.1", "::1"].contains(&host) {
        bail!(
            "--url {:?}: expected an address of this machine, such as http://localhost:15021/healthz/ready",
            args.url
        );
    }
    let server = Local { port: uri.port_u16().unwrap_or(80), tasks: Tasks::new() };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let limit = Duration::from_millis(args.request_timeout_millis);
    let start = Instant::now();
    let end = start + Duration::from_secs(args.timeout_seconds);
    loop {
        let reason = match server.call(Method::GET, path, Bytes::new(), limit).await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Ok((status, _)) => format!("HTTP status {status}"),
            Err(error) => error.to_string(),
        };
        let now = Instant::now();
        if now >= end {
            bail!("timeout waiting for Envoy proxy to become ready. Last error: {reason}");
        }
        let period = Duration::from_millis(args.period_millis);
        let pause = if now - start < EAGER { period.min(SOON) } else { period };
        sleep(pause.min(end - now)).await;
    }
}
