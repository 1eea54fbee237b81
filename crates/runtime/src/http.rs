//! A small HTTP/1 server for status and debug pages. Nobody can keep others
//! out: a connection that does not go on is closed, and when there are too
//! many, the one that has done nothing for longest makes room.

mod slots;
mod stall;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::tasks::Tasks;
use slots::Slots;
use stall::Stream;

/// A response body, whole or streamed.
pub type Body = BoxBody<Bytes, io::Error>;

/// What clients may do.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once.
    connections: usize,
    /// Time to send a request's head, also the next one's.
    head: Duration,
    /// Time in which the client has to take some of the response.
    stall: Duration,
}

/// Errors of a system call that no later one gets rid of, by their numbers in Linux.
const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const ENOTSOCK: i32 = 88;
/// Longest head of a request, in bytes, and with it the memory of a connection.
const MAX_HEAD: usize = 64 << 10;
/// Status pages need few connections, and little time.
const LIMITS: Limits =
    Limits { connections: 256, head: Duration::from_secs(10), stall: Duration::from_secs(10) };

/// Serves requests on a listener until the tasks are stopped, or the listener
/// is of no use any more, which the handle tells.
pub fn serve<H, F>(
    tasks: &Tasks,
    name: &'static str,
    listener: TcpListener,
    handler: H,
) -> JoinHandle<Option<io::Error>>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve_within(LIMITS, tasks, name, listener, handler)
}

fn serve_within<H, F>(
    limits: Limits,
    tasks: &Tasks,
    name: &'static str,
    listener: TcpListener,
    handler: H,
) -> JoinHandle<Option<io::Error>>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let slots = Slots::new(limits.connections);
    let set = tasks.clone();
    tasks.spawn(name, async move {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Not a socket that listens: there is nothing to wait for.
                Err(error) if matches!(error.raw_os_error(), Some(EBADF | EINVAL | ENOTSOCK)) => {
                    return error;
                }
                Err(error) => {
                    tracing::warn!(server = name, %error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let slot = slots.take(peer.ip().to_canonical().is_loopback());
            let handler = handler.clone();
            set.spawn(name, async move {
                let service = service_fn(move |request| {
                    let answer = handler(request, peer);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD);
                let stream: Stream<TcpStream> = Stream::new(stream, limits.stall, slot.activity());
                tokio::select! {
                    result = server.serve_connection(TokioIo::new(stream), service) => {
                        if let Err(error) = result {
                            tracing::debug!(server = name, %peer, %error, "connection");
                        }
                    }
                    () = slot.evicted() => tracing::debug!(server = name, %peer, "closed to make room"),
                }
            });
        }
    })
}

/// A body that is there as a whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A response of that type.
#[must_use]
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response of plain text.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body)
}

/// A response of indented JSON.
#[must_use]
pub fn json(value: &serde_json::Value) -> Response<Body> {
    respond(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

#[cfg(test)]
mod tests;
