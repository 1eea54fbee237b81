//! A web server on this machine that answers as a test tells it, plain or with
//! TLS, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What was asked.
#[derive(Clone, Debug)]
pub(in super::super) struct Asked {
    /// Path and query.
    pub(in super::super) path: String,
    /// Headers.
    pub(in super::super) headers: HeaderMap,
}

/// The server.
pub(in super::super) struct Server {
    /// Where it listens.
    pub(in super::super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: Tasks,
}

impl Server {
    pub(in super::super) async fn start(
        answer: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(None, answer).await
    }

    pub(in super::super) async fn listen(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (tasks, answer, log) = (Tasks::new(), Arc::new(answer), asked.clone());
        let set = tasks.clone();
        drop(tasks.spawn("server", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, answer, log) = (tls.clone(), answer.clone(), log.clone());
                drop(set.spawn("connection", async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (answer, log) = (answer.clone(), log.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            // The client waits for nothing else.
                            drop(body);
                            let asked = Asked { path: head.uri.to_string(), headers: head.headers };
                            log.lock().unwrap().push(asked.clone());
                            Ok::<_, std::convert::Infallible>(answer(&asked))
                        }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                            Err(_) => None,
                        },
                    };
                }));
            }
        }));
        Self { address, asked, tasks }
    }

    pub(in super::super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far.
    pub(in super::super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Paths of what was asked so far.
    pub(in super::super) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }

    /// Stops it.
    pub(in super::super) async fn stop(&self) {
        self.tasks.stop(std::time::Duration::from_secs(5)).await;
    }
}

pub(in super::super) fn ok(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(body.into()))
}

pub(in super::super) fn status(status: u16) -> Response<Full<Bytes>> {
    let mut response = ok("because of the test");
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Sends the client elsewhere.
pub(in super::super) fn redirect(to: &str) -> Response<Full<Bytes>> {
    let mut response = status(302);
    response.headers_mut().insert("location", to.parse().unwrap());
    response
}
