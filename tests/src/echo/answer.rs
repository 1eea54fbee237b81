//! What the server says of a request.

use std::io;
use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use runtime::http::{Body, json, respond, text};
use serde_json::{Value, json};

use super::recorded::Record;

/// Path for which there is no answer: the connection ends.
const RESET: &str = "/reset";

/// Path of what an application shows to Prometheus.
pub const METRICS: &str = "/metrics";
/// The newer format of it, as libraries of Prometheus offer it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is known before a request is read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// The server name of TLS; `None` without TLS.
    pub(super) sni: Option<String>,
    /// What the PROXY protocol said first.
    pub(super) proxied: Option<String>,
}

impl Seen {
    fn page(&self, protocol: &str) -> Value {
        json!({
            "name": self.name,
            "protocol": protocol,
            "local": self.local.ip().to_string(),
            "peer": self.peer.ip().to_string(),
            "sni": self.sni,
            "proxied": self.proxied,
        })
    }

    /// The line that answers bytes which are not HTTP.
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut page = self.page("TCP");
        page["raw"] = String::from_utf8_lossy(bytes).into();
        format!("{page}\n").into_bytes()
    }

    pub(super) fn answer(&self, request: &Request<Incoming>, record: &Record) -> io::Result<Response<Body>> {
        let raw = record.take();
        let path = request.uri().path();
        if path == RESET {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if path == METRICS {
            return Ok(metrics(request.headers()));
        }
        if let Some(code) = path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            return Ok(text(code, ""));
        }
        let headers = request.headers();
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = request.uri().authority().map(http::uri::Authority::as_str).or(named);
        let mut page = self.page(match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        });
        page["method"] = request.method().as_str().into();
        page["host"] = host.into();
        page["path"] = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str).into();
        page["headers"] = all(headers);
        page["raw"] = raw.into();
        Ok(if is_grpc(headers) { grpc(&page) } else { json(&page) })
    }
}

/// A counter in the format that the scraper prefers: as OpenMetrics with an example and a
/// unit, which the older one does not have.
fn metrics(asked: &HeaderMap) -> Response<Body> {
    let accept = asked.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.starts_with("application/openmetrics-text") {
        let page = "# HELP echo_waited_seconds Time.\n# TYPE echo_waited_seconds counter\n\
                    # UNIT echo_waited_seconds seconds\n\
                    echo_waited_seconds_total{format=\"open\"} 1.5 # {trace_id=\"1\"} 0.5\n# EOF\n";
        return respond(StatusCode::OK, OPEN_METRICS, page);
    }
    let page = "# TYPE echo_waited_seconds_total counter\necho_waited_seconds_total{format=\"text\"} 1.5\n";
    respond(StatusCode::OK, "text/plain; version=0.0.4", page)
}

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// All headers; those of one name are joined.
fn all(headers: &HeaderMap) -> Value {
    let values = |name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        Value::from(values.join(","))
    };
    Value::Object(headers.keys().map(|name| (name.to_string(), values(name))).collect())
}

/// A page as the message of an answer of gRPC.
fn grpc(page: &Value) -> Response<Body> {
    let message = page.to_string();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put_slice(message.as_bytes());
    let trailers = async {
        Some(Ok::<_, io::Error>(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )])))
    };
    let body = Full::<Bytes>::new(frame.freeze()).map_err(|never| match never {});
    let mut response = Response::new(body.with_trailers(trailers).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
