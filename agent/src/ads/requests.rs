//! What goes to istiod: Envoy's messages, byte for byte, and the agent's own
//! between them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use names::TypeUrl;
use tokio::time::Instant;
use tracing::{debug, warn};
use xds::frame::Seen;

use super::own::{Request, Variant};
use super::splice::{Done, Splice, Verdict};
use super::stream::Stream;
use crate::metrics::{Direction, Metrics};

/// Envoy's first requests are kept up to that size until istiod has answered,
/// so that another istiod can be asked with them.
const REPLAY_MAX: usize = 4 << 20;

/// The requests of the agent that wait for their turn: the last of each kind,
/// because it says all that the earlier ones did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// NDS.
    Names,
    /// PCDS.
    Roots,
    /// ECDS that is refused.
    Extensions,
    /// Health of the workload.
    Health,
}
const SLOTS: usize = 4;

/// Why there is no more to send.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Envoy's stream broke.
    #[error("Envoy's stream: {0}")]
    Envoy(#[from] hyper::Error),
    /// Envoy sends something else.
    #[error("Envoy's stream: {0}")]
    Malformed(#[from] xds::frame::Malformed),
    /// Another connection has taken over.
    #[error("another connection to istiod has taken over")]
    Superseded,
}

/// State of that direction.
#[derive(Debug)]
pub(super) struct Up {
    variant: Variant,
    /// `None` after Envoy's last byte.
    envoy: Option<Incoming>,
    splice: Splice,
    own: [Option<Bytes>; SLOTS],
    /// Requests of the agent may go before what of Envoy's is about to go.
    may_overtake: bool,
    /// What Envoy has sent so far; `None` when that is no longer of use.
    replay: Option<Replay>,
    /// Which try to open istiod's stream this is.
    attempt: u64,
    /// Envoy has asked for listeners.
    pub(super) has_listeners: bool,
    /// Version of extensions that Envoy has.
    pub(super) extensions: String,
    /// When bytes were given that have not been taken yet.
    pub(super) given: Option<Instant>,
}

#[derive(Debug, Default)]
struct Replay {
    pieces: Vec<Bytes>,
    size: usize,
}

impl Up {
    pub(super) fn new(variant: Variant, envoy: Incoming) -> Self {
        Self {
            variant,
            envoy: Some(envoy),
            splice: Splice::passing(variant.requests()),
            own: [const { None }; SLOTS],
            may_overtake: false,
            replay: Some(Replay::default()),
            attempt: 0,
            has_listeners: false,
            extensions: String::new(),
            given: None,
        }
    }

    /// Whether istiod can be asked anew.
    pub(super) fn can_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// istiod has answered: it will not be asked anew.
    pub(super) fn answered(&mut self) {
        self.replay = None;
    }

    /// Whoever sends now is told to stop.
    pub(super) fn close(&mut self) {
        self.attempt += 1;
        self.given = None;
    }

    pub(super) fn put(&mut self, slot: Slot, request: Bytes) {
        self.own[slot as usize] = Some(request);
    }

    /// Everything from the beginning, for another connection; returns its number.
    fn begin(&mut self, stream: &Stream) -> u64 {
        self.attempt += 1;
        if self.attempt > 1 {
            self.splice = Splice::passing(self.variant.requests());
            self.own = [const { None }; SLOTS];
            self.has_listeners = false;
            self.given = None;
            let pieces = self.replay.as_ref().map(|replay| replay.pieces.clone()).unwrap_or_default();
            for piece in pieces {
                // They were readable the first time.
                self.feed(stream, &piece, false).ok();
            }
        }
        self.attempt
    }

    fn take(&mut self, stream: &Stream, chunk: &Bytes) -> Result<(), Error> {
        if let Some(replay) = &mut self.replay {
            replay.size += chunk.len();
            if replay.size > REPLAY_MAX {
                self.replay = None;
            } else {
                replay.pieces.push(chunk.clone());
            }
        }
        self.feed(stream, chunk, true)
    }

    fn feed(&mut self, stream: &Stream, chunk: &Bytes, is_new: bool) -> Result<(), Error> {
        let Self { splice, own, may_overtake, has_listeners, extensions, variant, .. } = self;
        let apart = own.iter().any(Option::is_some);
        *may_overtake = apart;
        let done = |Done { seen, .. }: Done| {
            if is_new {
                note(stream.id, &stream.shared.metrics, &seen);
            }
            match TypeUrl::from(seen.type_url.as_str()) {
                TypeUrl::Listener if !*has_listeners => {
                    *has_listeners = true;
                    *may_overtake = false;
                    first_own(stream, *variant, own);
                }
                TypeUrl::Extension if !seen.version.is_empty() => *extensions = seen.version,
                _ => {}
            }
        };
        Ok(splice.feed(chunk, apart, |_| Verdict::Pass, done)?)
    }

    fn poll(
        &mut self,
        stream: &Stream,
        attempt: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        if attempt != self.attempt {
            return Poll::Ready(Some(Err(Error::Superseded)));
        }
        stream.up_waker.register(cx.waker());
        self.given = None;
        loop {
            let is_turn = self.splice.is_between() && (self.may_overtake || self.splice.is_empty());
            let own = is_turn.then(|| self.own.iter_mut().find_map(Option::take)).flatten();
            if own.is_some() {
                stream.shared.metrics.message(Direction::Request);
            }
            if let Some(bytes) = own.or_else(|| self.splice.pop()) {
                self.given = Some(Instant::now());
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(envoy) = &mut self.envoy else { return Poll::Ready(None) };
            match ready!(Pin::new(envoy).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    self.take(stream, &chunk)?;
                }
                Some(Err(error)) => {
                    self.envoy = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.envoy = None,
            }
        }
    }
}

/// What the agent asks for itself, once Envoy has asked for listeners.
fn first_own(stream: &Stream, variant: Variant, own: &mut [Option<Bytes>; SLOTS]) {
    let ends = &stream.shared.ends;
    let subscribe =
        |kind: TypeUrl| variant.request(&Request { type_url: kind.as_str(), ..Request::default() });
    if ends.names.is_some() {
        own[Slot::Names as usize] = Some(subscribe(TypeUrl::NameTable));
    }
    if ends.roots.is_some() {
        own[Slot::Roots as usize] = Some(subscribe(TypeUrl::ProxyConfig));
    }
    if let Some(health) = ends.health.as_ref().and_then(|health| health.borrow().clone()) {
        own[Slot::Health as usize] = Some(variant.health(&health));
    }
}

fn note(id: u64, metrics: &Metrics, seen: &Seen) {
    metrics.message(Direction::Request);
    let kind = TypeUrl::from(seen.type_url.as_str());
    let (r#type, nonce) = (kind.short(), seen.nonce.as_str());
    match &seen.error {
        Some(reason) => {
            warn!(target: "xdsproxy", id, r#type, nonce, reason, "Envoy refused a configuration and keeps what it had");
        }
        None => debug!(target: "xdsproxy", id, r#type, nonce, length = seen.length, "request"),
    }
}

/// The body of one try to open istiod's stream.
#[derive(Debug)]
pub struct Requests {
    stream: Arc<Stream>,
    attempt: u64,
}

impl Requests {
    /// Of another try; earlier ones end.
    #[must_use]
    pub fn begin(stream: &Arc<Stream>) -> Self {
        let attempt = stream.up().begin(stream);
        // An istiod that has refused may still wait for what is to come.
        stream.up_waker.wake();
        Self { stream: stream.clone(), attempt }
    }
}

impl Body for Requests {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.stream.up().poll(&self.stream, self.attempt, cx);
        polled.map(|next| next.map(|next| next.map(Frame::data)))
    }
}
