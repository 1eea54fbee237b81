//! What goes to Envoy: istiod's messages, byte for byte, without those that
//! are meant for the agent or for nobody here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use names::TypeUrl;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::own::{Request, Variant};
use super::requests::Slot;
use super::splice::{Done, Fate, Splice, Verdict};
use super::stream::Stream;
use super::{extension, taken, unavailable};
use crate::metrics::Direction;
use crate::metrics::ads::End;

/// Type URLs that Envoy may know begin so.
const ENVOY_TYPES: &str = "type.googleapis.com/envoy.";
/// The one other type that a build of Envoy's subscribes to.
const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
/// Incremental ECDS responses that may wait for downloads of earlier ones;
/// istiod sends one and waits for its ACK.
const WAITING: usize = 64;

/// State of that direction.
#[derive(Debug)]
pub(super) struct Down {
    variant: Variant,
    /// `None` before istiod's first byte and after its last.
    istiod: Option<Incoming>,
    address: Option<SocketAddr>,
    splice: Splice,
    /// ECDS responses that wait to be made ready, and those that are.
    extensions: VecDeque<Bytes>,
    is_converting: bool,
    ready: VecDeque<Bytes>,
    /// How the stream ends once everything was sent.
    ending: Option<HeaderMap>,
    is_ended: bool,
    /// When bytes were given that have not been taken yet.
    pub(super) given: Option<Instant>,
}

/// A type that Envoy may get.
fn is_for_envoy(kind: &str) -> bool {
    kind.starts_with(ENVOY_TYPES) || kind == WORKLOAD
}

fn verdict(stream: &Stream, kind: &str) -> Verdict {
    let shared = &stream.shared;
    match TypeUrl::from(kind) {
        TypeUrl::NameTable if shared.ends.names.is_some() => Verdict::Take,
        TypeUrl::ProxyConfig if shared.ends.roots.is_some() => Verdict::Take,
        TypeUrl::Extension if shared.ends.extensions.is_some() => Verdict::Take,
        _ if is_for_envoy(kind) => Verdict::Pass,
        _ => Verdict::Drop,
    }
}

impl Down {
    pub(super) fn new(variant: Variant) -> Self {
        Self {
            variant,
            istiod: None,
            address: None,
            splice: Splice::deciding(variant.responses()),
            extensions: VecDeque::new(),
            is_converting: false,
            ready: VecDeque::new(),
            ending: None,
            is_ended: false,
            given: None,
        }
    }

    pub(super) fn begin(&mut self, istiod: Incoming, address: SocketAddr) {
        self.istiod = Some(istiod);
        self.address = Some(address);
        // That of a try that stalled before this one.
        self.ending = None;
    }

    /// The stream ends with those trailers; the first end counts.
    pub(super) fn end(&mut self, stream: &Stream, trailers: HeaderMap) {
        if self.istiod.take().is_some() {
            stream.shared.disconnected();
        }
        if !self.is_ended && self.ending.is_none() {
            self.ending = Some(trailers);
        }
    }

    /// istiod has ended the stream or is gone.
    fn lost(&mut self, stream: &Stream, end: End, reason: &str, trailers: HeaderMap) {
        if self.istiod.is_none() {
            return;
        }
        let id = stream.id;
        match end {
            End::Cancelled => debug!(target: "xdsproxy", id, reason, "istiod ended the stream"),
            End::Error => warn!(target: "xdsproxy", id, reason, "istiod is lost"),
        }
        stream.shared.metrics.ads.istiod_ended(end);
        self.end(stream, trailers);
        stream.shared.dialer.prepare(self.address);
    }

    /// Takes istiod's next bytes; returns what is to be done about them.
    pub(super) fn take(&mut self, stream: &Stream, chunk: &Bytes) -> Vec<Done> {
        let mut done = Vec::new();
        let apart = !self.ready.is_empty();
        let fed = self.splice.feed(chunk, apart, |kind| verdict(stream, kind), |each| done.push(each));
        if let Err(malformed) = fed {
            self.lost(stream, End::Error, &malformed.to_string(), unavailable("istiod sends no gRPC"));
        }
        done
    }

    /// The next bytes, or `None` when istiod's are wanted.
    fn pop(&mut self) -> Option<Bytes> {
        let ready = if self.splice.is_between() { self.ready.pop_front() } else { None };
        let bytes = ready.or_else(|| self.splice.pop())?;
        self.given = Some(Instant::now());
        Some(bytes)
    }

    fn poll(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Next> {
        stream.down_waker.register(cx.waker());
        self.given = None;
        loop {
            if let Some(bytes) = self.pop() {
                return Poll::Ready(Next::Frame(Frame::data(bytes)));
            }
            if let Some(trailers) = self.ending.take() {
                self.is_ended = true;
                return Poll::Ready(Next::Frame(Frame::trailers(trailers)));
            }
            let Some(istiod) = &mut self.istiod else { return Poll::Ready(Next::End) };
            match ready!(Pin::new(istiod).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => {
                        let done = self.take(stream, &chunk);
                        if !done.is_empty() {
                            return Poll::Ready(Next::Done(done));
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let reason = super::reason(&trailers);
                        self.lost(stream, End::of_status(&trailers), &reason, trailers);
                    }
                },
                Some(Err(error)) => {
                    let (end, text) = (End::of_error(&error), super::chain(&error));
                    self.lost(stream, end, &text, unavailable("connection to istiod lost"));
                }
                None => {
                    let ended = unavailable("istiod ended the stream without a status");
                    self.lost(stream, End::Cancelled, "no status", ended);
                }
            }
        }
    }
}

/// What a poll has found.
enum Next {
    Frame(Frame<Bytes>),
    /// Messages have ended; there may be more.
    Done(Vec<Done>),
    End,
}

impl Stream {
    /// Deals with messages that have come to their end.
    pub(super) fn handle(self: &Arc<Self>, done: Vec<Done>) {
        for Done { seen, fate } in done {
            let id = self.id;
            self.shared.metrics.message(Direction::Response);
            let kind = if seen.type_url.is_empty() { &seen.resource_type } else { &seen.type_url };
            let url = TypeUrl::from(kind.as_str());
            debug!(target: "xdsproxy", id, r#type = url.short(), nonce = seen.nonce, length = seen.length, "response");
            match fate {
                Fate::Passed if is_for_envoy(kind) => {}
                // Envoy ignores types that it has not asked for.
                Fate::Passed => {
                    error!(target: "xdsproxy", id, r#type = kind, resources = seen.resource_type, "istiod's message says another type than its resources");
                }
                Fate::Taken(message) if url == TypeUrl::Extension => self.convert(message),
                Fate::Taken(message) => {
                    let answer = taken::take(&self.shared.ends, self.variant, &url, message);
                    let accepted = answer.error.is_none();
                    if let Some(reason) = &answer.error {
                        error!(target: "xdsproxy", id, r#type = url.short(), reason, "istiod's message for the agent is refused");
                    }
                    debug!(target: "xdsproxy", id, r#type = url.short(), accepted, "taken");
                    self.answer(&url, &answer.version, &answer.nonce, answer.error.as_deref());
                }
                Fate::TooLong if verdict(self, kind) == Verdict::Take => {
                    error!(target: "xdsproxy", id, r#type = url.short(), length = seen.length, "istiod's message for the agent is too long");
                    self.answer(&url, "", &seen.nonce, Some("the message is longer than the agent reads"));
                }
                Fate::Dropped | Fate::TooLong => {
                    self.shared.metrics.ads.dropped();
                    let unreadable = seen.is_unreadable;
                    error!(target: "xdsproxy", id, r#type = kind, length = seen.length, unreadable, "istiod's message is not passed on: Envoy knows no such type");
                }
            }
        }
    }

    /// Tells istiod what has become of a message for the agent.
    fn answer(&self, kind: &TypeUrl, version: &str, nonce: &str, error: Option<&str>) {
        let slot = match kind {
            TypeUrl::NameTable => Slot::Names,
            TypeUrl::ProxyConfig => Slot::Roots,
            _ => Slot::Extensions,
        };
        let request = Request { type_url: kind.as_str(), version, nonce, error };
        self.put(slot, self.variant.request(&request));
    }

    /// Makes an ECDS response ready beside the other types' messages.
    fn convert(self: &Arc<Self>, message: Bytes) {
        let mut down = self.down();
        if down.variant == Variant::Sotw {
            // It says all that those before it did.
            down.extensions.clear();
        }
        if down.extensions.len() >= WAITING {
            drop(down);
            return self.end("istiod sends more extensions than can be fetched");
        }
        down.extensions.push_back(message);
        if !std::mem::replace(&mut down.is_converting, true) {
            drop(self.shared.tasks.spawn("extensions", convert_all(Arc::downgrade(self))));
        }
    }
}

async fn convert_all(stream: Weak<Stream>) {
    loop {
        let Some(strong) = stream.upgrade() else { return };
        let (variant, Some(fetcher)) = (strong.variant, strong.shared.ends.extensions.clone()) else {
            return;
        };
        let message = {
            let mut down = strong.down();
            let next = down.extensions.pop_front();
            down.is_converting = next.is_some();
            next
        };
        // A download must not keep a stream that is over.
        drop(strong);
        let Some(message) = message else { return };
        let converted = extension::converted(&fetcher, variant, message.clone()).await;
        let Some(stream) = stream.upgrade() else { return };
        match converted {
            Ok(message) => {
                stream.down().ready.push_back(message);
                stream.down_waker.wake();
            }
            Err(reason) => {
                error!(target: "xdsproxy", id = stream.id, reason, "istiod's extensions are refused");
                let nonce = variant.response(message).map(|response| response.nonce).unwrap_or_default();
                let version = stream.up().extensions.clone();
                stream.answer(&TypeUrl::Extension, &version, &nonce, Some(&reason));
            }
        }
    }
}

/// The body of the answer to Envoy.
#[derive(Debug)]
pub struct Responses(Arc<Stream>);

impl Responses {
    /// The answer on that stream, to which istiod has answered.
    #[must_use]
    pub fn new(stream: Arc<Stream>) -> Self {
        Self(stream)
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let stream = &self.0;
        loop {
            let next = ready!(stream.down().poll(stream, cx));
            match next {
                Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Next::Done(done) => stream.handle(done),
                Next::End => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let stream = &self.0;
        let mut down = stream.down();
        if down.istiod.is_some() {
            stream.shared.metrics.ads.envoy_ended(End::Cancelled);
            debug!(target: "xdsproxy", id = stream.id, "Envoy ended the stream");
        }
        down.end(stream, HeaderMap::new());
        drop(down);
        stream.close_up();
    }
}
