//! Requests to Envoy's admin interface and, for commands, to the agent: plain
//! HTTP on this machine, one connection each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::tasks::Tasks;
use tokio::net::TcpStream;

/// Largest answer that is kept as a whole.
const MAX_BODY: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("connect to port {port}: {source}")]
    Connect {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The request failed.
    #[error("request to port {port}: {source}")]
    Http {
        /// The port.
        port: u16,
        /// Why.
        source: hyper::Error,
    },
    /// No such path.
    #[error("{0:?} is not a path")]
    Path(String),
    /// The answer is too long or breaks off.
    #[error("answer of port {port}: {reason}")]
    Body {
        /// The port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer of port {port} within {limit:?}")]
    Timeout {
        /// The port.
        port: u16,
        /// The limit.
        limit: Duration,
    },
}

/// An HTTP server on this machine.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its port.
    pub port: u16,
    /// Runs the connections.
    pub tasks: Tasks,
}

impl Local {
    /// Sends a request and returns as soon as the head of the answer is there.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let port = self.port;
        let stream = open(port).await.map_err(|source| Error::Connect { port, source })?;
        self.send_on(stream, method, path, headers, body).await
    }

    /// The same on a connection that is there, to whatever machine.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_on(
        &self,
        stream: TcpStream,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let port = self.port;
        let failed = |source| Error::Http { port, source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        drop(self.tasks.spawn("local connection", connection));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Error::Path(path.to_owned()))?;
        *request.headers_mut() = headers;
        request.headers_mut().entry(HOST).or_insert(const { HeaderValue::from_static("localhost") });
        sender.send_request(request).await.map_err(failed)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        let port = self.port;
        let whole = async {
            let answer = self.send(method, path, HeaderMap::new(), body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| Error::Body { port, reason: error.to_string() })?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(limit, whole).await.map_err(|_| Error::Timeout { port, limit })?
    }
}

async fn open(port: u16) -> std::io::Result<TcpStream> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    match TcpStream::connect(v4).await {
        Ok(stream) => Ok(stream),
        Err(error) => {
            let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
            TcpStream::connect(v6).await.map_err(|_| error)
        }
    }
}
