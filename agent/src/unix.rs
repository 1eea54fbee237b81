//! Unix sockets for Envoy: HTTP/2 servers that only Envoy, the agent and root
//! can reach, unless everybody is let in. A socket whose file is removed is
//! made again; the streams that are open go on.

mod authority;
mod socket;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::upstream::Keepalive;
use authority::Lenient;
pub use socket::{Access, Error, Socket, listen, open};

/// Bytes of one stream, and of all of a connection, that may be on their way.
pub(crate) const WINDOW: u32 = 1 << 20;
/// Largest frame that a peer may send; larger ones cost fewer turns.
pub(crate) const FRAME: u32 = 1 << 18;
/// Envoy opens one stream per secret and one for xDS.
const STREAMS: u32 = 100_000;
/// Waits after a connection that cannot be accepted: descriptors are missing,
/// and come back when others are closed.
const PAUSE: Duration = Duration::from_millis(50);
/// As long as that lasts, it is told so often.
const TELL: Duration = Duration::from_secs(60);
/// Users whose refusal is logged; a hostile one has few more at hand.
const TOLD: usize = 16;

/// Runs HTTP/2 connections in a set of tasks.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(pub(crate) Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("http2", future));
    }
}

/// Serves HTTP/2 on a socket until the tasks are stopped.
pub fn serve<S, B>(tasks: &Tasks, name: &'static str, socket: Socket, files: &Files, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve_alive(tasks, name, socket, files, None, service);
}

/// The same; clients that do not answer when they are asked whether they are
/// alive are given up.
pub fn serve_alive<S, B>(
    tasks: &Tasks,
    name: &'static str,
    mut socket: Socket,
    files: &Files,
    keepalive: Option<Keepalive>,
    service: S,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let set = tasks.clone();
    let mut changes = files.watch(&[socket.path()]);
    let accept = async move {
        let mut refused = BTreeSet::new();
        let mut told: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = changes.changed() => {
                    socket.restore(name).await;
                    continue;
                }
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    if told.is_none_or(|told| Instant::now() - told >= TELL) {
                        tracing::warn!(server = name, %error, "connections cannot be accepted; trying on");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !admitted(name, &socket, &stream, &mut refused) {
                continue;
            }
            let service = service.clone();
            let mut server = hyper::server::conn::http2::Builder::new(Spawner(set.clone()));
            server
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_frame_size(FRAME)
                .max_concurrent_streams(STREAMS);
            if let Some(Keepalive { interval, timeout }) = keepalive {
                server.keep_alive_interval(interval).keep_alive_timeout(timeout);
            }
            let connection = server.serve_connection(TokioIo::new(Lenient::new(stream)), service);
            drop(set.spawn(name, async move {
                if let Err(error) = connection.await {
                    tracing::debug!(server = name, %error, "connection");
                }
            }));
        }
    };
    drop(tasks.spawn(name, accept));
}

/// Whether a client may stay; the first refusal of each user is logged.
fn admitted(name: &str, socket: &Socket, stream: &UnixStream, refused: &mut BTreeSet<u32>) -> bool {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(server = name, %error, "a connection was refused: its user is not known");
            return false;
        }
    };
    let is_admitted = socket.access().admits(peer.uid());
    if !is_admitted && refused.len() < TOLD && refused.insert(peer.uid()) {
        tracing::warn!(
            server = name, socket = %socket.path().display(), uid = peer.uid(), pid = peer.pid(),
            "a connection was refused: only root, the agent's user and the proxy's may connect; \
             ISTIO_AGENT_SOCKET_MODE=0666 lets every process of the pod in"
        );
    }
    is_admitted
}

#[cfg(test)]
mod tests;
