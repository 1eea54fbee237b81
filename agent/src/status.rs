//! The status server (15020): readiness, metrics, and the two ways to end.

pub mod ready;
pub mod scrape;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use runtime::http::{Body, full, text};
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::config;
use crate::envoy::admin::Local;
use crate::metrics::Metrics;
use ready::Ready;

/// Requests to end that wait to be followed; a second one says nothing new.
pub const COMMANDS: usize = 4;

/// What somebody asks of the running agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End now.
    Quit,
    /// Drain and stay.
    Drain,
}

/// Answers status requests.
#[derive(Debug)]
pub struct Server {
    /// Settings.
    pub settings: config::Status,
    /// Readiness.
    pub ready: Arc<Ready>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Envoy.
    pub admin: Local,
    /// Where requests to end go.
    pub commands: mpsc::Sender<Command>,
}

/// Opens the port: for both address families where the system has both.
///
/// # Errors
/// When the port is taken.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        // No IPv6 on this machine.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    }
}

/// Serves until the tasks are stopped.
pub fn serve(tasks: &Tasks, listener: TcpListener, server: Server) {
    let server = Arc::new(server);
    runtime::http::serve(tasks, "status", listener, move |request, peer| {
        let server = server.clone();
        async move { server.answer(&request, peer).await }
    });
}

impl Server {
    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let is_local = is_loopback(peer.ip());
        match request.uri().path() {
            "/healthz/ready" => match self.ready.check(&self.admin).await {
                Ok(()) => empty(StatusCode::OK),
                Err(reason) => {
                    self.ready.tell(&reason);
                    empty(StatusCode::SERVICE_UNAVAILABLE)
                }
            },
            "/stats/prometheus" | "/metrics" => {
                if self.settings.metrics_localhost_only && !is_local {
                    return text(StatusCode::FORBIDDEN, "metrics are for this machine only\n");
                }
                self.scrape(request.uri().query(), request.headers()).await
            }
            "/quitquitquit" => self.command(Command::Quit, request.method(), is_local),
            "/drain" => self.command(Command::Drain, request.method(), is_local),
            path => text(StatusCode::NOT_FOUND, format!("{path}: nothing here\n")),
        }
    }

    fn command(&self, command: Command, method: &Method, is_local: bool) -> Response<Body> {
        if !is_local {
            return text(StatusCode::FORBIDDEN, "for this machine only\n");
        }
        if method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
        }
        // When the queue is full the same has been asked already.
        self.commands.try_send(command).ok();
        text(StatusCode::OK, "OK")
    }

    async fn scrape(&self, query: Option<&str>, headers: &HeaderMap) -> Response<Body> {
        self.metrics.scraped();
        let own = self.metrics.render(std::time::SystemTime::now());
        scrape::merged(own, &self.admin, query, headers, &self.metrics).await
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

/// IPv4 peers show as IPv6 addresses on a socket for both.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_local_too() {
        for (ip, local) in
            [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(is_loopback(ip.parse().unwrap()), local, "{ip}");
        }
    }
}
