//! `wait`: until Envoy is ready, so that an application may start after it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use names::port;
use runtime::tasks::Tasks;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::config::args::Wait;
use crate::envoy::admin::{self, Local};
use crate::status::url::authority;

/// Between two tries: Envoy is usually ready soon, and a pod waits for it.
const PERIOD: Duration = Duration::from_millis(50);
/// Longest reason that is read, in bytes.
const MAX_REASON: usize = 4 << 10;
/// What the agent says by itself, also while Envoy does not listen yet.
const AGENT: (u16, &str) = (port::AGENT_STATUS, "/healthz/ready");

/// Waits until the URL answers 200.
///
/// # Errors
/// When it does not in time, with the reason of the last failure.
pub async fn run(args: &Wait) -> anyhow::Result<()> {
    let uri: Uri = args.url.parse().with_context(|| format!("--url {:?}", args.url))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if uri.scheme_str() != Some("http") || host.is_empty() {
        bail!("--url {:?}: expected an address such as http://localhost:15021/healthz/ready", args.url);
    }
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let limit = Duration::from_millis(args.request_timeout_millis);
    let period = args.period_millis.map_or(PERIOD, Duration::from_millis);
    let start = Instant::now();
    // None: later than the clock can tell, which is never.
    let end = start.checked_add(Duration::from_secs(args.timeout_seconds));
    info!("Waiting for Envoy proxy to be ready (timeout: {} seconds)...", args.timeout_seconds);
    loop {
        let reason = match ask(host, port, path, limit).await {
            Ok(()) => {
                info!("Envoy is ready!");
                return Ok(());
            }
            Err(reason) => reason,
        };
        debug!("Not ready yet: {reason}");
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            let reason = with_agents_reason(reason, port, limit).await;
            bail!("timeout waiting for Envoy proxy to become ready. Last error: {reason}");
        }
        sleep(end.map_or(period, |end| period.min(end - now))).await;
    }
}

/// Asks once whether it is ready.
async fn ask(host: &str, port: u16, path: &str, limit: Duration) -> Result<(), String> {
    let whole = async {
        let local = Local { port, tasks: Tasks::new() };
        let answer = if is_local(host) {
            local.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
        } else {
            let stream = TcpStream::connect((host, port)).await;
            let stream = stream.map_err(|source| admin::Error::Connect { port, source });
            match stream {
                Ok(stream) => {
                    let name = authority(host, port).try_into().map(|name| (HOST, name));
                    let headers = name.into_iter().collect();
                    local.send_on(stream, Method::GET, path, headers, Bytes::new()).await
                }
                Err(error) => Err(error),
            }
        };
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let body = Limited::new(answer.into_body(), MAX_REASON).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let reason = String::from_utf8_lossy(&body);
        let colon = if reason.trim().is_empty() { "" } else { ": " };
        Err(format!("HTTP status code {}{colon}{}", status.as_u16(), reason.trim()))
    };
    timeout(limit, whole).await.unwrap_or_else(|_| Err(format!("no answer of port {port} within {limit:?}")))
}

/// Envoy opens its port only when it has its configuration: until then the
/// agent knows more than that nobody listens.
async fn with_agents_reason(reason: String, port: u16, limit: Duration) -> String {
    if port == AGENT.0 || reason.starts_with("HTTP ") {
        return reason;
    }
    match ask("localhost", AGENT.0, AGENT.1, limit).await {
        Err(agent) if agent.starts_with("HTTP ") => format!("{agent} ({reason})"),
        _ => reason,
    }
}

fn is_local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "::1"].contains(&host)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A port on which nobody listens, and arguments to wait for it.
    fn args(timeout_seconds: u64) -> Wait {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        Wait { timeout_seconds, request_timeout_millis: u64::MAX, period_millis: Some(u64::MAX), url }
    }

    #[tokio::test(start_paused = true)]
    async fn says_why_when_the_time_is_over() {
        let error = run(&args(1)).await.unwrap_err().to_string();
        assert!(
            error.starts_with("timeout waiting for Envoy proxy to become ready. Last error: "),
            "{error}"
        );
        assert!(error.contains("connect to port "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_of_times_are_no_panic() {
        let year = Duration::from_secs(365 * 86400);
        let args = args(u64::MAX);
        timeout(year, run(&args)).await.unwrap_err();
    }

    #[tokio::test]
    async fn asks_at_once_and_tells_the_reason_that_it_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tasks = Tasks::new();
        runtime::http::serve(&tasks, "ready", listener, |request, _| async move {
            match request.uri().path() {
                "/ready" => runtime::http::text(StatusCode::OK, ""),
                _ => runtime::http::text(StatusCode::SERVICE_UNAVAILABLE, "workers have not yet started\n"),
            }
        });
        let args = |path: &str, timeout_seconds| Wait {
            timeout_seconds,
            request_timeout_millis: 60_000,
            period_millis: None,
            url: format!("http://localhost:{port}{path}"),
        };
        let start = Instant::now();
        run(&args("/ready", 60)).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        let error = run(&args("/", 0)).await.unwrap_err().to_string();
        assert!(error.ends_with("Last error: HTTP status code 503: workers have not yet started"), "{error}");
    }

    #[tokio::test]
    async fn other_schemes_are_refused() {
        let args = Wait { url: "https://localhost/".into(), ..args(1) };
        assert!(run(&args).await.unwrap_err().to_string().contains("expected an address such as"));
    }
}
