//! A server of Envoy's access log service (`envoy.service.accesslog.v3`), which keeps what
//! it is told.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use runtime::tasks::Tasks;
use tokio::net::TcpListener;

use super::server;

/// Where it takes logs.
pub const PORT: u16 = 9001;
/// Bytes before each message of gRPC: whether it is compressed, and its length.
const HEAD: usize = 5;

/// `StreamAccessLogsMessage`, as far as it is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Report {
    #[prost(message, optional, tag = "1")]
    identifier: Option<Identifier>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpLogs>,
    #[prost(message, optional, tag = "3")]
    tcp: Option<TcpLogs>,
}

/// `StreamAccessLogsMessage.Identifier`.
#[derive(Clone, PartialEq, prost::Message)]
struct Identifier {
    #[prost(string, tag = "2")]
    log_name: String,
}

/// `StreamAccessLogsMessage.HTTPAccessLogEntries`.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpLogs {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<HttpEntry>,
}

/// `StreamAccessLogsMessage.TCPAccessLogEntries`.
#[derive(Clone, PartialEq, prost::Message)]
struct TcpLogs {
    #[prost(bytes = "vec", repeated, tag = "1")]
    entries: Vec<Vec<u8>>,
}

/// `envoy.data.accesslog.v3.HTTPAccessLogEntry`.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpEntry {
    #[prost(message, optional, tag = "3")]
    request: Option<HttpRequest>,
    #[prost(message, optional, tag = "4")]
    response: Option<HttpResponse>,
}

/// `HTTPRequestProperties`.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpRequest {
    #[prost(string, tag = "3")]
    authority: String,
    #[prost(string, tag = "5")]
    path: String,
}

/// `HTTPResponseProperties`.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpResponse {
    #[prost(message, optional, tag = "1")]
    code: Option<u32>,
}

/// What was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A request.
    Request {
        /// Name of the log.
        log: String,
        /// `Host`.
        host: String,
        /// Path with its query.
        path: String,
        /// Status of the answer.
        status: u32,
    },
    /// A connection.
    Connection {
        /// Name of the log.
        log: String,
    },
}

/// One that runs; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    entries: Arc<Mutex<Vec<Entry>>>,
    _server: server::Server,
}

impl Server {
    /// Starts one in a namespace.
    #[must_use]
    pub fn start(namespace: &str) -> Self {
        let entries = Arc::default();
        let kept = Arc::clone(&entries);
        let serve = |listener| async move { serve(listener, &kept).await };
        Self { entries, _server: server::Server::start("access log service", namespace, PORT, serve) }
    }

    /// Everything so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, entries: &Arc<Mutex<Vec<Entry>>>) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let entries = Arc::clone(entries);
        tasks.spawn("access logs", async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&entries)));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(stream), service).await.ok()
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// A call goes on as long as the proxy has something to tell.
async fn answer(
    request: Request<Incoming>,
    entries: Arc<Mutex<Vec<Entry>>>,
) -> Result<Response<Body>, hyper::Error> {
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        while let Some(report) = message(&mut bytes) {
            entries.lock().unwrap_or_else(PoisonError::into_inner).extend(read(report));
        }
    }
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let mut response = Response::new(Empty::new().with_trailers(async { Some(Ok(trailers)) }).boxed());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The next message, when all of it is there.
fn message(bytes: &mut BytesMut) -> Option<Report> {
    let mut head = bytes.get(1..HEAD)?;
    let length = usize::try_from(head.get_u32()).ok()?;
    if bytes.len() < HEAD + length {
        return None;
    }
    bytes.advance(HEAD);
    Some(Report::decode(bytes.split_to(length)).unwrap_or_default())
}

fn read(report: Report) -> Vec<Entry> {
    let log = report.identifier.map(|identifier| identifier.log_name).unwrap_or_default();
    let requests = report.http.into_iter().flat_map(|logs| logs.entries).map(|entry| {
        let HttpRequest { authority: host, path } = entry.request.unwrap_or_default();
        let status = entry.response.and_then(|response| response.code).unwrap_or_default();
        Entry::Request { log: log.clone(), host, path, status }
    });
    let connections = report.tcp.into_iter().flat_map(|logs| logs.entries);
    requests.chain(connections.map(|_| Entry::Connection { log: log.clone() })).collect()
}
