//! Serves gRPC on the connections that come, and ends each of them in good
//! order: its client is told to use it no more, its streams end with a status,
//! and what is answered at that moment is answered.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::Connected as _;
use tower::ServiceExt as _;
use tracing::debug;

use crate::drain::{DEAF, Drain, Place};
use crate::listener::Connection;
use crate::world::World;

/// Bytes that a peer may send before it must wait; large meshes have large messages.
const WINDOW: u32 = 1024 * 1024;
/// Bytes of a stream that may wait to be written: copies, for each of many clients
/// that come at once.
const UNSENT: usize = 64 * 1024;
/// Streams of one connection at once.
const STREAMS: u32 = 100_000;
/// Time for what is under way when a connection ends.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What streams are told whose connection ends for its age.
const OF_AGE: &str = "the connection has come of age: connect again";
/// By how much of it the age of connections differs, so that those that were
/// made together do not end together.
const SPREAD: f64 = 0.1;

/// How connections live.
#[derive(Clone, Debug)]
pub struct Server {
    /// Interval and time-out of pings.
    pub keepalive: (Duration, Duration),
    /// Time after which a connection ends, if it does.
    pub age: Option<Duration>,
    /// The end of them all.
    pub drain: Drain,
}

impl Server {
    /// Serves what comes once there is something to serve: a proxy that came
    /// earlier would be told that its mesh is empty.
    pub fn serve(
        self,
        tasks: &Tasks,
        name: &'static str,
        routes: Routes,
        mut incoming: ReceiverStream<io::Result<Connection>>,
        mut world: watch::Receiver<Arc<World>>,
    ) {
        let set = tasks.clone();
        let routes = routes.prepare();
        tasks.spawn(name, async move {
            if world.wait_for(|world| world.serial > 0).await.is_err() {
                return;
            }
            while let Some(connection) = incoming.next().await {
                let Ok(connection) = connection else { continue };
                let place = self.drain.enter();
                let served = self.clone().serve_one(connection, routes.clone(), place);
                set.spawn("grpc connection", served);
            }
        });
    }

    async fn serve_one(self, connection: Connection, routes: Routes, place: Place) {
        let peer = connection.connect_info();
        let address = peer.address;
        let life = place.life();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(life.clone());
            let routes = routes.clone();
            async move { routes.oneshot(request).await as Result<Response<Body>, Infallible> }
        });
        let (interval, timeout) = self.keepalive;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(UNSENT)
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
        let served = builder.serve_connection(TokioIo::new(connection), service);
        tokio::pin!(served);
        let why = tokio::select! {
            result = served.as_mut() => {
                if let Err(error) = result {
                    debug!(target: "ads", %address, %error, "connection");
                }
                return;
            }
            why = place.is_over() => why,
            () = aged(self.age) => OF_AGE,
        };
        debug!(target: "ads", %address, why, "the connection is given up");
        served.as_mut().graceful_shutdown();
        place.end(why);
        let patience = if why == DEAF { Duration::ZERO } else { LAST_WORDS };
        if tokio::time::timeout(patience, served).await.is_err() {
            debug!(target: "ads", %address, "the connection did not end in time");
        }
    }
}

/// Completes when a connection is old.
async fn aged(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age.mul_f64(1.0 + rand::random_range(-SPREAD..SPREAD))).await,
        None => std::future::pending().await,
    }
}
