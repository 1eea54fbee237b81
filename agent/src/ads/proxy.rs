//! Takes streams on the ADS socket and gives each a connection of its own to
//! istiod, so that no state of one istiod leaks into a stream with another.
//!
//! While istiod cannot be reached, a new stream of Envoy is held and the
//! connection tried again and again: Envoy would wait longer between its own
//! tries. A second client of the socket gets a stream of its own and never
//! displaces Envoy's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use std::path::PathBuf;
use tracing::{debug, info, warn};
use xds::frame::Fields;

use super::relay::{Requests, Responses, reason, unavailable};
use crate::config::Endpoint;
use crate::metrics::Metrics;
use crate::upstream;

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Waits between tries to reach istiod, shortest and longest. A restart of
/// istiod is followed within the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Headers of Envoy that istiod needs to see.
const PASSED: [&str; 3] = ["grpc-encoding", "grpc-accept-encoding", "user-agent"];
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Body of a response: istiod's, or none when the stream ends with its headers.
pub type Body = Either<Responses, Empty<Bytes>>;

/// Carries streams to istiod.
#[derive(Debug)]
pub struct Proxy {
    endpoint: Endpoint,
    token: PathBuf,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    streams: AtomicU64,
}

impl Proxy {
    /// A proxy to that istiod; the token is read for every stream.
    #[must_use]
    pub fn new(endpoint: Endpoint, token: PathBuf, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self { endpoint, token, tasks, metrics, streams: AtomicU64::new(0) }
    }

    /// Serves one stream.
    pub async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let (requests, responses) = match request.uri().path() {
            SOTW => (Fields::SOTW_REQUEST, Fields::SOTW_RESPONSE),
            DELTA => (Fields::DELTA_REQUEST, Fields::DELTA_RESPONSE),
            path => {
                debug!(target: "xdsproxy", path, "unknown call");
                return ended(unimplemented());
            }
        };
        let id = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let mut sender = self.connect(id).await;
        let (head, body) = request.into_parts();
        let body = Requests::new(body, id, requests, self.metrics.clone());
        let answer = sender.send_request(self.upstream_request(&head, body)).await;
        match answer {
            Ok(answer) => self.answer(id, answer, responses),
            Err(error) => {
                self.metrics.istiod_failed();
                warn!(target: "xdsproxy", id, %error, "istiod ended the stream before it began");
                ended(unavailable("connection to istiod lost"))
            }
        }
    }

    /// Tries until there is a connection. Ends early only when Envoy gives up,
    /// which drops this future.
    async fn connect(&self, id: u64) -> SendRequest<Requests> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut told = String::new();
        loop {
            match upstream::connect(&self.endpoint, &self.tasks).await {
                Ok(sender) => {
                    info!(target: "xdsproxy", id, address = self.endpoint.address, "connected to istiod");
                    return sender;
                }
                Err(error) => {
                    self.metrics.istiod_failed();
                    let text = error.to_string();
                    if text != told {
                        warn!(target: "xdsproxy", id, error = text, "istiod cannot be reached; Envoy's stream is held meanwhile");
                        told = text;
                    }
                    backoff.sleep().await;
                }
            }
        }
    }

    fn upstream_request(&self, head: &http::request::Parts, body: Requests) -> Request<Requests> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, head.headers.get(CONTENT_TYPE).cloned().unwrap_or(GRPC));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for name in PASSED {
            if let Some(value) = head.headers.get(name) {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        for (name, value) in &self.endpoint.headers {
            // Checked when the configuration was read.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(token) = upstream::authorization(&self.token) {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        let mut parts = upstream::origin(&self.endpoint).into_parts();
        parts.path_and_query = head.uri.path_and_query().cloned();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        // Scheme, authority and path are all there, so the parts always fit.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| head.uri.clone());
        *request.headers_mut() = headers;
        request
    }

    fn answer(&self, id: u64, answer: Response<Incoming>, fields: Fields) -> Response<Body> {
        let (head, body) = answer.into_parts();
        if head.headers.contains_key("grpc-status") {
            warn!(target: "xdsproxy", id, reason = reason(&head.headers), "istiod refused the stream");
            self.metrics.istiod_failed();
        }
        let mut response =
            Response::new(Either::Left(Responses::new(body, id, fields, self.metrics.clone())));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }
}

/// A stream that ends with its headers.
fn ended(mut status: HeaderMap) -> Response<Body> {
    status.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.headers_mut() = status;
    response
}

fn unimplemented() -> HeaderMap {
    let mut status = HeaderMap::with_capacity(2);
    status.insert("grpc-status", HeaderValue::from_static("12"));
    status.insert(
        "grpc-message",
        HeaderValue::from_static("this socket carries aggregated discovery streams only"),
    );
    status
}
