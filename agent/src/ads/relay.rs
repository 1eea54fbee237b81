//! Bodies that pass one direction of a stream on, byte for byte, and note
//! which messages went by.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tracing::{debug, warn};
use xds::frame::{Fields, Scanner, Seen};

use crate::metrics::{Direction, Metrics};

/// gRPC status `UNAVAILABLE`: try again.
const UNAVAILABLE: &str = "14";

/// What Envoy sends.
#[derive(Debug)]
pub struct Requests {
    inner: Incoming,
    watch: Watch,
}

/// What istiod sends. A connection that breaks becomes a proper end of the
/// stream, so that Envoy reads a reason.
#[derive(Debug)]
pub struct Responses {
    inner: Option<Incoming>,
    watch: Watch,
    ended: bool,
}

#[derive(Debug)]
struct Watch {
    id: u64,
    direction: Direction,
    /// `None` after bytes that are no messages; they are passed on all the same.
    scanner: Option<Scanner>,
    metrics: Arc<Metrics>,
}

impl Watch {
    fn see(&mut self, bytes: &[u8]) {
        let Some(scanner) = &mut self.scanner else { return };
        let (id, direction, metrics) = (self.id, self.direction, &self.metrics);
        let scanned = scanner.scan(bytes, |seen| note(id, direction, metrics, &seen));
        if scanned.is_err() {
            debug!(target: "xdsproxy", id, ?direction, "bytes that are no discovery messages");
            self.scanner = None;
        }
    }
}

fn note(id: u64, direction: Direction, metrics: &Metrics, seen: &Seen) {
    metrics.message(direction);
    let kind = seen.type_url.as_str();
    if direction == Direction::Request && seen.is_error {
        warn!(target: "xdsproxy", id, r#type = kind, nonce = seen.nonce, "Envoy refused a configuration and keeps what it had");
    } else {
        debug!(target: "xdsproxy", id, r#type = kind, nonce = seen.nonce, length = seen.length, ?direction, "message");
    }
}

impl Requests {
    /// Envoy's end of stream `id`.
    #[must_use]
    pub fn new(inner: Incoming, id: u64, fields: Fields, metrics: Arc<Metrics>) -> Self {
        let watch = Watch { id, direction: Direction::Request, scanner: Some(Scanner::new(fields)), metrics };
        Self { inner, watch }
    }
}

impl Body for Requests {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.watch.see(bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Responses {
    /// istiod's end of stream `id`.
    #[must_use]
    pub fn new(inner: Incoming, id: u64, fields: Fields, metrics: Arc<Metrics>) -> Self {
        let watch =
            Watch { id, direction: Direction::Response, scanner: Some(Scanner::new(fields)), metrics };
        Self { inner: Some(inner), watch, ended: false }
    }

    fn end(&mut self, reason: &str) {
        self.ended = true;
        self.inner = None;
        self.watch.metrics.istiod_ended();
        debug!(target: "xdsproxy", id = self.watch.id, reason, "istiod ended the stream");
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.watch.see(bytes);
                } else if let Some(trailers) = frame.trailers_ref() {
                    let reason = reason(trailers);
                    self.end(&reason);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.end(&error.to_string());
                Poll::Ready(Some(Ok(Frame::trailers(unavailable("connection to istiod lost")))))
            }
            None => {
                if !self.ended {
                    self.end("end of data");
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        if !self.ended {
            self.watch.metrics.envoy_ended();
            debug!(target: "xdsproxy", id = self.watch.id, "Envoy ended the stream");
        }
    }
}

/// The end of a gRPC stream that may be tried again.
#[must_use]
pub fn unavailable(message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static(UNAVAILABLE));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// Why a gRPC stream ended.
#[must_use]
pub fn reason(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    format!("status {} {}", text("grpc-status"), text("grpc-message")).trim_end().to_owned()
}
