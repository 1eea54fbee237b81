//! `request`: one HTTP request to Envoy's admin interface or to the agent.
//! Prints the body and nothing else, because programs read it.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use names::port;
use runtime::tasks::Tasks;

use crate::config::args::Request;
use crate::envoy::admin::Local;

/// Longest wait for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Ports that may be asked.
const PORTS: [u16; 4] = [port::ENVOY_ADMIN, 15004, port::AGENT_STATUS, port::ENVOY_HEALTH];
/// Beginning of the body of an answer that is an error, in bytes.
const MAX_REASON: usize = 64 << 10;

/// Sends the request and prints the answer, piece by piece as it comes.
///
/// # Errors
/// When there is none, or it says that something is wrong.
pub async fn run(args: &Request) -> anyhow::Result<()> {
    let port = args.debug_port;
    if !PORTS.contains(&port) {
        bail!("debug port {port} is not in allowed list {PORTS:?}");
    }
    let whole = send(args, super::print);
    let answer = tokio::time::timeout(TIMEOUT, whole).await;
    answer.map_err(|_| anyhow!("no answer of port {port} within {TIMEOUT:?}"))?
}

async fn send(args: &Request, mut print: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let method: Method = args.method.parse().with_context(|| format!("method {:?}", args.method))?;
    let path = format!("/{}", args.path.strip_prefix('/').unwrap_or(&args.path));
    let server = Local { port: args.debug_port, tasks: Tasks::new() };
    let body = args.body.first().cloned().unwrap_or_default();
    let answer = server.send(method, &path, HeaderMap::new(), Bytes::from(body)).await?;
    let status = answer.status();
    let is_error = status.as_u16() > 399 && status != StatusCode::NOT_FOUND;
    let mut reason = Vec::new();
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.with_context(|| format!("answer of port {}", args.debug_port))?.into_data()
        else {
            continue;
        };
        if !is_error {
            print(&data)?;
        } else if reason.len() < MAX_REASON {
            reason.extend_from_slice(&data);
        }
    }
    if is_error {
        let reason = String::from_utf8_lossy(&reason);
        bail!("received unsuccessful status code {}: {reason}", status.as_u16());
    }
    print(b"\n")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What is printed for an answer, or why nothing is.
    async fn printed(code: u16, path: &str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let debug_port = listener.local_addr().unwrap().port();
        let tasks = Tasks::new();
        runtime::http::serve(&tasks, "admin", listener, move |request, _| async move {
            let text = format!("{} {}", request.method(), request.uri());
            runtime::http::text(StatusCode::from_u16(code).unwrap(), text)
        });
        let args = Request {
            method: "POST".into(),
            path: path.into(),
            body: vec!["x".into(), "y".into()],
            debug_port,
        };
        let mut out = Vec::new();
        let sent = send(&args, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        match sent.await {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(error) => {
                assert!(out.is_empty());
                Err(error.to_string())
            }
        }
    }

    #[tokio::test]
    async fn the_body_is_printed_alone() {
        assert_eq!(printed(200, "a?b").await.unwrap(), "POST /a?b\n");
        assert_eq!(printed(404, "//a").await.unwrap(), "POST //a\n");
        let error = printed(503, "/a").await.unwrap_err();
        assert_eq!(error, "received unsuccessful status code 503: POST /a");
    }

    #[tokio::test]
    async fn other_ports_are_not_asked() {
        let args = Request { method: "GET".into(), path: "x".into(), body: Vec::new(), debug_port: 22 };
        let error = run(&args).await.unwrap_err().to_string();
        assert_eq!(error, "debug port 22 is not in allowed list [15000, 15004, 15020, 15021]");
    }
}
