//! The status server (15020): readiness, metrics, probes of the application,
//! looks inside, and the two ways to end.

pub mod debug;
pub mod dial;
pub mod gzip;
pub mod health;
pub mod probes;
pub mod ready;
pub mod scrape;
pub mod url;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use runtime::http::{Body, full, text};
use runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::status::Merge;
use crate::dns::View;
use crate::envoy::admin::Local;
use crate::metrics::Metrics;
use probes::Passer;
use ready::Ready;

/// Requests to end that wait to be followed; a second one says nothing new.
pub const COMMANDS: usize = 4;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

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
    /// Its own port.
    pub port: u16,
    /// Metrics are for this machine only.
    pub metrics_localhost_only: bool,
    /// Metrics that are joined.
    pub merge: Merge,
    /// Probes of the application.
    pub probes: Option<Passer>,
    /// Readiness.
    pub ready: Arc<Ready>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Envoy.
    pub admin: Local,
    /// Envoy's port for metrics.
    pub envoy_metrics: Arc<AtomicU16>,
    /// The table of the DNS proxy, if there is one.
    pub names: Option<View>,
    /// The settings in force, JSON, without what is secret.
    pub config: String,
    /// Where requests to end go.
    pub commands: mpsc::Sender<Command>,
}

/// Opens the port: for both address families where the system has both.
///
/// # Errors
/// When the port is taken.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match bind_both(port) {
        Ok(listener) => Ok(listener),
        // No IPv6 on this machine.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    }
}

/// IPv4 comes to this socket too, whatever `net.ipv6.bindv6only` says.
fn bind_both(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, Ipv6V6Only, &false)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

/// Serves until the tasks are stopped, or the port fails, which the handle tells.
pub fn serve(tasks: &Tasks, listener: TcpListener, server: Server) -> JoinHandle<Option<io::Error>> {
    let server = Arc::new(server);
    runtime::http::serve(tasks, "status", listener, move |request, peer| {
        let server = server.clone();
        async move {
            let takes_gzip = gzip::is_accepted(request.headers());
            let response = server.answer(&request, peer).await;
            if takes_gzip { gzip::compress(response) } else { response }
        }
    })
}

impl Server {
    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let is_local = is_loopback(peer.ip());
        match request.uri().path() {
            "/healthz/ready" => match self.ready.check().await {
                Ok(()) => empty(StatusCode::OK),
                // Istio's has no body: whoever waits gets to know what for.
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/stats/prometheus" | "/metrics" => {
                if self.metrics_localhost_only && !is_local {
                    return for_this_machine();
                }
                self.scrape(request.uri().query(), request.headers()).await
            }
            "/quitquitquit" => self.command(Command::Quit, request.method(), is_local),
            "/drain" => self.command(Command::Drain, request.method(), is_local),
            path if probes::is_probe(path) => match &self.probes {
                Some(probes) => probes.pass(path, request.headers(), self.port).await,
                None => probes::unknown(path),
            },
            path if path.starts_with("/debug/") => {
                if is_local {
                    self.debug(path, request)
                } else {
                    for_this_machine()
                }
            }
            path => text(StatusCode::NOT_FOUND, format!("{path}: nothing here\n")),
        }
    }

    fn debug(&self, path: &str, request: &Request<Incoming>) -> Response<Body> {
        match path {
            "/debug/config" => debug::show_config(&self.config),
            "/debug/ndsz" => debug::names(self.names.as_ref().and_then(View::json)),
            "/debug/log" => debug::log(request.method(), request.uri().query(), runtime::log::handle()),
            path if path.starts_with("/debug/pprof") => debug::no_profiles(),
            path => {
                let known = "/debug/config, /debug/log and /debug/ndsz";
                text(StatusCode::NOT_FOUND, format!("{path}: nothing here; there are {known}\n"))
            }
        }
    }

    fn command(&self, command: Command, method: &Method, is_local: bool) -> Response<Body> {
        if !is_local {
            return for_this_machine();
        }
        if method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        }
        // When the queue is full the same has been asked already.
        self.commands.try_send(command).ok();
        text(StatusCode::OK, "OK")
    }

    async fn scrape(&self, query: Option<&str>, headers: &HeaderMap) -> Response<Body> {
        self.metrics.scraped();
        let own = self.metrics.render(std::time::SystemTime::now());
        let port = self.envoy_metrics.load(Ordering::Relaxed);
        let envoy = Local { port, tasks: self.admin.tasks.clone() };
        scrape::merged((own, self.port), &self.merge, &envoy, query, headers, &self.metrics).await
    }
}

fn for_this_machine() -> Response<Body> {
    text(StatusCode::FORBIDDEN, "Only requests from localhost are allowed\n")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

/// Whether a peer is on this machine. IPv4 peers show as IPv6 addresses on a
/// socket for both. Envoy passes on requests of others from an address of its own.
fn is_loopback(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() && ip != dial::SOURCE_V4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_local_too_and_what_envoy_passes_on_is_not() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("127.0.0.6", false),
            ("::ffff:127.0.0.6", false),
            ("::6", false),
        ] {
            assert_eq!(is_loopback(ip.parse().unwrap()), local, "{ip}");
        }
    }
}
