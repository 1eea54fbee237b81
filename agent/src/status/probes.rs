//! Probes of the application that the kubelet sends to the agent, because the
//! application itself cannot be reached without a certificate of the mesh.

pub mod grpc;
pub mod http;
mod tls;

use std::collections::HashMap;
use std::time::Duration;

use ::http::header::{HOST, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use runtime::http::{Body, text};
use runtime::tasks::Tasks;
use tokio::time::timeout;
use tracing::error;

use self::http::{Client, Destination};
use super::empty;
use crate::config::status::{Action, Probe, Probes};

/// Paths of probes begin like that.
const PREFIXES: [&str; 2] = ["/app-health/", "/app-lifecycle/"];
/// Longest wait where the kubelet decides: it closes its connection, and the
/// probe ends with it.
const UNLIMITED: Duration = Duration::from_secs(3600);
/// What gRPC servers are told who asks, when the kubelet does not say.
const UNNAMED: HeaderValue = HeaderValue::from_static("kube-probe");

/// Passes probes on.
pub struct Passer {
    probes: Probes,
    destination: Destination,
    clients: HashMap<String, Client>,
    tasks: Tasks,
}

impl std::fmt::Debug for Passer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passer").field("probes", &self.probes).finish_non_exhaustive()
    }
}

/// Whether a path is one of probes.
#[must_use]
pub fn is_probe(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// The answer to a path that no probe has.
#[must_use]
pub fn unknown(path: &str) -> Response<Body> {
    error!(path, "there is no such probe");
    text(StatusCode::BAD_REQUEST, format!("app prober config does not exists for {path}"))
}

/// The address that the kubelet meant: the agent's port is replaced by the
/// application's, and whatever else was asked for stays.
fn host(asked: Option<&HeaderValue>, status_port: u16, port: u16) -> Option<HeaderValue> {
    let asked = asked?;
    let replaced = asked.to_str().ok().and_then(|text| {
        let (host, found) = text.rsplit_once(':')?;
        let is_ours = found.parse() == Ok(status_port) && (!host.contains(':') || host.ends_with(']'));
        is_ours.then(|| format!("{host}:{port}"))
    });
    replaced.and_then(|text| text.try_into().ok()).or_else(|| Some(asked.clone()))
}

impl Passer {
    /// Makes ready for those probes; no connection is made.
    #[must_use]
    pub fn new(probes: Probes, tasks: Tasks) -> Self {
        let destination = probes.destination.map_or(Destination::Localhost, Destination::Pod);
        let is_http = |probe: &Probe| matches!(probe.action, Action::Http { .. });
        let client = || Client::new(destination.clone(), probes.http2, probes.keepalive, tasks.clone());
        let clients = probes.by_path.iter().filter(|(_, probe)| is_http(probe));
        let clients = clients.map(|(path, _)| (path.clone(), client())).collect();
        Self { probes, destination, clients, tasks }
    }

    /// Asks the application what the kubelet wants to know.
    pub async fn pass(&self, path: &str, headers: &HeaderMap, status_port: u16) -> Response<Body> {
        let Some(probe) = self.probes.by_path.get(path) else { return unknown(path) };
        let limit = probe.timeout.unwrap_or(UNLIMITED);
        match timeout(limit, self.ask(path, probe, headers, status_port, limit)).await {
            Ok(Ok(response)) => response,
            Ok(Err(reason)) => failed(path, &reason),
            Err(_) => failed(path, &format!("no answer within {limit:?}")),
        }
    }

    async fn ask(
        &self,
        path: &str,
        probe: &Probe,
        headers: &HeaderMap,
        status_port: u16,
        limit: Duration,
    ) -> Result<Response<Body>, String> {
        match &probe.action {
            Action::Http { is_tls, port, path: target } => {
                let client = self.clients.get(path).ok_or("no client")?;
                let mut headers = headers.clone();
                match host(headers.get(HOST), status_port, *port) {
                    Some(host) => drop(headers.insert(HOST, host)),
                    None => drop(headers.remove(HOST)),
                }
                let answer = client.get(*is_tls, *port, target, &headers).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let mut response = Response::new(runtime::http::full(answer.body));
                *response.status_mut() = answer.status;
                Ok(response)
            }
            Action::Tcp { port } => {
                self.destination.dial(*port).await.map_err(|error| error.to_string())?;
                Ok(empty(StatusCode::OK))
            }
            Action::Grpc { port, service } => {
                let stream = self.destination.dial(*port).await.map_err(|error| error.to_string())?;
                let agent = headers.get(USER_AGENT).cloned().unwrap_or(UNNAMED);
                let asked = grpc::check(stream, service, &agent, limit, &self.tasks).await;
                asked.map_err(|error| error.to_string())?;
                Ok(empty(StatusCode::OK))
            }
        }
    }
}

fn failed(path: &str, reason: &str) -> Response<Body> {
    error!(target: "probes", path, reason, "the application does not answer");
    empty(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_gets_the_applications_port() {
        let host = |asked: &'static str| host(Some(&HeaderValue::from_static(asked)), 15020, 8080).unwrap();
        for (asked, passed) in [
            ("10.0.0.1:15020", "10.0.0.1:8080"),
            ("[::1]:15020", "[::1]:8080"),
            ("web.example.com", "web.example.com"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("::15020", "::15020"),
            ("", ""),
        ] {
            assert_eq!(host(asked), passed);
        }
    }
}
