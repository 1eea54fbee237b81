//! The HTTPS server of all webhooks: bounded in connections, bytes and time,
//! since everybody in the cluster can reach it.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::admission::MAX_BYTES;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use runtime::http::{Body, text};
use runtime::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected as _;
use tracing::debug;

use super::places::Places;
use crate::drain::{Drain, Place};
use crate::listener::Connection;

/// Time to send a request's head, also the next one's.
const HEAD: Duration = Duration::from_secs(30);
/// Time to send the rest of a question; the API server itself waits 10 s for the answer.
const REST: Duration = Duration::from_secs(10);
/// Longest life of a connection, so that nobody holds one for ever.
const LIFE: Duration = Duration::from_secs(600);
/// Streams of one connection at once.
const STREAMS: u32 = 100;
/// Kilobytes of all questions that are being read or answered at once; most
/// have some ten.
const MEMORY: usize = 64 * 1024;

/// An answer that is on its way.
pub type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Bytes>) -> Reply + Send + Sync>;

/// Who is responsible for which path.
#[derive(Clone, Default)]
pub struct Routes(Vec<(&'static str, Handler)>);

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

impl Routes {
    /// Adds a path, with everything below it. The handler gets whole requests
    /// of at most [`MAX_BYTES`].
    pub fn add<H, F>(&mut self, path: &'static str, handler: H)
    where
        H: Fn(Request<Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.0.push((path, Arc::new(move |request| Box::pin(handler(request)))));
    }

    /// Whether there is nothing to serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, path: &str) -> Option<&Handler> {
        let fits = |known: &str| {
            path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.0.iter().find(|(known, _)| fits(known)).map(|(_, handler)| handler)
    }
}

/// Serves the connections that come, and gives them up when istiod stops.
pub fn serve(
    tasks: &Tasks,
    mut incoming: ReceiverStream<io::Result<Connection>>,
    routes: Routes,
    drain: Drain,
) {
    let set = tasks.clone();
    let routes = Arc::new(routes);
    let memory = Arc::new(Semaphore::new(MEMORY));
    tasks.spawn("webhooks", async move {
        let places = Places::default();
        while let Some(connection) = incoming.next().await {
            let Ok(connection) = connection else { continue };
            let address = connection.connect_info().address;
            let room = match places.take(address.ip()) {
                Ok(room) => room,
                Err(why) => {
                    debug!(target: "webhook", %address, "closed: {why}");
                    continue;
                }
            };
            let (routes, memory, place) = (routes.clone(), memory.clone(), drain.enter());
            set.spawn("webhook connection", async move {
                serve_one(connection, routes, memory, place).await;
                drop(room);
            });
        }
    });
}

async fn serve_one(connection: Connection, routes: Arc<Routes>, memory: Arc<Semaphore>, place: Place) {
    let service = service_fn(move |request| {
        let (routes, memory) = (routes.clone(), memory.clone());
        async move { Ok::<_, Infallible>(answer(request, &routes, &memory).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(HEAD);
    let served = builder.serve_connection(TokioIo::new(connection), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        () = tokio::time::sleep(LIFE) => None,
        _ = place.is_over() => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(REST, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        debug!(target: "webhook", %error, "connection");
    }
}

async fn answer(request: Request<Incoming>, routes: &Routes, memory: &Arc<Semaphore>) -> Response<Body> {
    let Some(handler) = routes.find(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "no webhook has this path\n");
    };
    let (head, body) = request.into_parts();
    match tokio::time::timeout(REST, whole(body, memory)).await {
        Ok(Ok((whole, held))) => {
            let response = handler(Request::from_parts(head, whole)).await;
            drop(held);
            response
        }
        Ok(Err(refusal)) => *refusal,
        Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the question did not come in time\n"),
    }
}

/// Reads a question, as memory for it becomes free, which is held until it is answered.
async fn whole(
    mut body: Incoming,
    memory: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Box<Response<Body>>> {
    let mut all = BytesMut::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Box::new(text(StatusCode::BAD_REQUEST, format!("{error}\n"))))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > MAX_BYTES {
            let words = format!("a question has at most {MAX_BYTES} bytes\n");
            return Err(Box::new(text(StatusCode::PAYLOAD_TOO_LARGE, words)));
        }
        let wanted = (all.len() + data.len()).div_ceil(1024) - all.len().div_ceil(1024);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        // Nobody closes the semaphore.
        if let Ok(more) = memory.clone().acquire_many_owned(wanted).await {
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        all.extend_from_slice(&data);
    }
    Ok((all.freeze(), held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_for_what_lies_below_it() {
        let mut routes = Routes::default();
        routes.add("/inject", |_| async { text(StatusCode::OK, "") });
        assert!(["/inject", "/inject/", "/inject/net/a"].iter().all(|path| routes.find(path).is_some()));
        assert!(["/", "/injects", "/x/inject"].iter().all(|path| routes.find(path).is_none()));
    }
}
