//! Takes streams on the ADS socket and gives each a connection of its own to
//! istiod, so that no state of one istiod leaks into a stream with another.
//!
//! When istiod goes away, Envoy's stream ends, and Envoy opens another one
//! within 500 ms. That one is held until some istiod has answered it: Envoy
//! would wait up to 30 s between its own tries. Until then what Envoy has sent
//! is kept, so that an istiod that refuses, or dies before it answers, costs
//! nothing but another try. A second client of the socket gets a stream of its
//! own and never displaces Envoy's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Either, Empty};
use hyper::body::Incoming;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use tracing::{debug, info, warn};

use super::dial::{Connection, Dialer};
use super::own::Variant;
use super::requests::Requests;
use super::responses::Responses;
use super::shared::Shared;
use super::stream::Stream;
use super::{Ends, chain, reason, status, unavailable};
use crate::config::Endpoint;
use crate::config::ads::Settings;
use crate::identity::token::{Expired, Token};
use crate::identity::told::Told;
use crate::metrics::Metrics;
use crate::upstream;

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Waits after a refusal of istiod, shortest and longest. It is there, and
/// busier than one that only comes up.
const REFUSED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Headers of Envoy that istiod needs to see. Compression of responses is not
/// offered: their type has to be read.
const PASSED: [&str; 2] = ["grpc-encoding", "user-agent"];
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// gRPC statuses that say that the request is wrong: `INVALID_ARGUMENT`,
/// `NOT_FOUND`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`,
/// `UNIMPLEMENTED`. The client is told; another try would say the same.
const FINAL: [&str; 6] = ["3", "5", "7", "9", "11", "12"];

/// Body of a response: istiod's, or none when the stream ends with its headers.
pub type Body = Either<Responses, Empty<Bytes>>;

/// Carries streams to istiod.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    token: Arc<Token>,
    streams_max: usize,
    told: Told,
}

/// An istiod that takes the stream: its address, and how it answers.
type Answer = (SocketAddr, HeaderMap, Bytes, Incoming);

/// An istiod that does not take the stream.
struct Refusal {
    /// Its address; `None` when it was not even asked.
    address: Option<SocketAddr>,
    /// Why.
    text: String,
    /// What a client is told of it.
    status: HeaderMap,
    /// Another try would be refused as well.
    is_final: bool,
}

impl Refusal {
    fn lost(error: &hyper::Error) -> Self {
        let status = unavailable("connection to istiod lost");
        Self { address: None, text: chain(error), status, is_final: false }
    }

    fn status(headers: HeaderMap) -> Self {
        let code = headers.get("grpc-status").and_then(|code| code.to_str().ok());
        let is_final = code.is_some_and(|code| FINAL.contains(&code));
        let mut text = reason(&headers);
        if text.contains("message larger than max") {
            text.push_str("; ISTIO_GPRC_MAXRECVMSGSIZE of istiod raises its limit");
        }
        Self { address: None, text, status: headers, is_final }
    }

    fn other(text: String) -> Self {
        let status = unavailable("istiod does not take the stream");
        Self { address: None, text, status, is_final: false }
    }
}

impl Proxy {
    /// A proxy to that istiod; the token is read for every stream.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        settings: Settings,
        token: Arc<Token>,
        ends: Ends,
        tasks: &Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        let dialer = Dialer::new(endpoint, settings.keepalive, tasks.clone(), metrics.clone());
        let shared = Arc::new(Shared::new(ends, dialer, tasks.clone(), metrics));
        drop(tasks.spawn("ads", shared.clone().watch(settings.stall)));
        Self { shared, token, streams_max: settings.streams_max, told: Told::new() }
    }

    /// Serves one stream.
    pub async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let variant = match request.uri().path() {
            SOTW => Variant::Sotw,
            DELTA => Variant::Delta,
            path => {
                debug!(target: "xdsproxy", path, "unknown call");
                return ended(status("12", "this socket carries aggregated discovery streams only"));
            }
        };
        let (head, body) = request.into_parts();
        let Some(stream) = self.shared.open(variant, body, self.streams_max) else {
            if self.told.is_new("limit") {
                warn!(target: "xdsproxy", limit = self.streams_max, "a stream is refused: there are too many; ISTIO_GPRC_MAXSTREAMS raises the limit");
            }
            return ended(status(
                "8",
                "too many streams; ISTIO_GPRC_MAXSTREAMS of the agent raises the limit",
            ));
        };
        let mut backoff = Backoff::new(REFUSED.0, REFUSED.1);
        loop {
            // Ends early only when Envoy gives up, which drops this future.
            match self.ask(&stream, &head).await {
                Ok((address, headers, first, body)) => {
                    info!(target: "xdsproxy", id = stream.id, %address, ?variant, "connected to istiod");
                    self.told.clear();
                    stream.answered(body, address, &first);
                    let mut response = Response::new(Either::Left(Responses::new(stream)));
                    *response.headers_mut() = headers;
                    return response;
                }
                Err(refusal) => {
                    self.shared.metrics.istiod_failed();
                    let is_held = !refusal.is_final && stream.up().can_replay();
                    self.tell(stream.id, &refusal, is_held);
                    if !is_held {
                        return ended(refusal.status);
                    }
                    if let Some(address) = refusal.address {
                        self.shared.dialer.avoid(address);
                    }
                    backoff.sleep().await;
                }
            }
        }
    }

    /// Asks an istiod to take the stream.
    async fn ask(&self, stream: &Arc<Stream>, head: &Parts) -> Result<Answer, Refusal> {
        let authorization = || self.token.authorization(self.shared.dialer.endpoint());
        let expired = |error: Expired| Refusal::other(error.to_string());
        // Without anything to show, nobody is dialled.
        authorization().map_err(expired)?;
        let Connection { mut sender, address } = self.shared.dialer.take().await;
        // It may be another one by now.
        let token = authorization().map_err(expired)?;
        let request = self.upstream_request(head, token, Requests::begin(stream));
        match attempt(sender.send_request(request)).await {
            Ok((headers, first, body)) => Ok((address, headers, first, body)),
            Err(refusal) => Err(Refusal { address: Some(address), ..refusal }),
        }
    }

    /// A reason is told once, until some istiod has taken a stream.
    fn tell(&self, id: u64, refusal: &Refusal, held: bool) {
        let Refusal { text: reason, address, .. } = refusal;
        let address = address.map(tracing::field::display);
        if self.told.is_new(&format!("{held} {reason}")) {
            warn!(target: "xdsproxy", id, address, reason, held, "istiod does not take the stream");
        } else {
            debug!(target: "xdsproxy", id, address, reason, held, "istiod does not take the stream");
        }
    }

    fn upstream_request(
        &self,
        head: &Parts,
        token: Option<HeaderValue>,
        body: Requests,
    ) -> Request<Requests> {
        let endpoint = self.shared.dialer.endpoint();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, head.headers.get(CONTENT_TYPE).cloned().unwrap_or(GRPC));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for name in PASSED {
            if let Some(value) = head.headers.get(name) {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        for (name, value) in &endpoint.headers {
            // Checked when the configuration was read.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token);
        }
        let mut parts = upstream::origin(endpoint).into_parts();
        parts.path_and_query = head.uri.path_and_query().cloned();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        // Scheme, authority and path are all there, so the parts always fit.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| head.uri.clone());
        *request.headers_mut() = headers;
        request
    }
}

/// One try: the headers and first bytes of istiod's answer, and the rest to come.
async fn attempt(
    sent: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> Result<(HeaderMap, Bytes, Incoming), Refusal> {
    let (head, mut body) = sent.await.map_err(|error| Refusal::lost(&error))?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Refusal::other(format!("HTTP status {}", head.status)));
    }
    if head.headers.contains_key("grpc-status") {
        return Err(Refusal::status(head.headers));
    }
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok((head.headers, bytes, body)),
                Err(frame) => return Err(Refusal::status(frame.into_trailers().unwrap_or_default())),
            },
            Some(Err(error)) => return Err(Refusal::lost(&error)),
            None => return Err(Refusal::other("the stream ended without a status".into())),
        }
    }
}

/// A stream that ends with its headers.
fn ended(mut status: HeaderMap) -> Response<Body> {
    status.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.headers_mut() = status;
    response
}
