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
    // None: later than the clock can tell, which is never.
    let end = start.checked_add(Duration::from_secs(args.timeout_seconds));
    loop {
        let reason = match server.call(Method::GET, path, Bytes::new(), limit).await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Ok((status, _)) => format!("HTTP status {status}"),
            Err(error) => error.to_string(),
        };
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            bail!("timeout waiting for Envoy proxy to become ready. Last error: {reason}");
        }
        let period = Duration::from_millis(args.period_millis);
        let pause = if now - start < EAGER { period.min(SOON) } else { period };
        sleep(end.map_or(pause, |end| pause.min(end - now))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port on which nobody listens, and arguments to wait for it.
    fn args(timeout_seconds: u64) -> Wait {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        Wait { timeout_seconds, request_timeout_millis: u64::MAX, period_millis: u64::MAX, url }
    }

    #[tokio::test(start_paused = true)]
    async fn says_why_when_the_time_is_over() {
        let error = run(&args(1)).await.unwrap_err().to_string();
        assert!(
            error.starts_with("timeout waiting for Envoy proxy to become ready. Last error: conn"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_of_times_are_no_panic() {
        let year = Duration::from_secs(365 * 86400);
        let args = args(u64::MAX);
        tokio::time::timeout(year, run(&args)).await.unwrap_err();
    }
}
