//! One stream of a client of the socket, from its first byte to its last.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::own::Variant;
use super::requests::{Slot, Up};
use super::responses::Down;
use super::shared::Shared;
use super::unavailable;

/// Both directions of it.
pub struct Stream {
    /// Its number, for logs.
    pub id: u64,
    /// Variant of the protocol.
    pub variant: Variant,
    pub(super) shared: Arc<Shared>,
    up: Mutex<Up>,
    down: Mutex<Down>,
    /// Whoever waits for something to send to istiod.
    pub(super) up_waker: AtomicWaker,
    /// Whoever waits for something to send to Envoy.
    pub(super) down_waker: AtomicWaker,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(id: u64, variant: Variant, shared: Arc<Shared>, envoy: Incoming) -> Self {
        Self {
            id,
            variant,
            shared,
            up: Mutex::new(Up::new(variant, envoy)),
            down: Mutex::new(Down::new(variant)),
            up_waker: AtomicWaker::new(),
            down_waker: AtomicWaker::new(),
        }
    }

    /// State of the direction to istiod. Never locked together with the other.
    pub(super) fn up(&self) -> MutexGuard<'_, Up> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// State of the direction to Envoy.
    pub(super) fn down(&self) -> MutexGuard<'_, Down> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request of the agent's own at the next end of a message.
    pub fn put(&self, slot: Slot, request: Bytes) {
        self.up().put(slot, request);
        self.up_waker.wake();
    }

    /// istiod has answered with these first bytes.
    pub(super) fn answered(self: &Arc<Self>, istiod: Incoming, address: SocketAddr, first: &Bytes) {
        self.up().answered();
        self.shared.connected();
        self.down().begin(istiod, address);
        let done = self.down().take(self, first);
        self.handle(done);
    }

    /// Sends the health of the workload, if istiod may be told by now.
    pub(super) fn tell_health(&self) {
        let health = self.shared.ends.health.as_ref().and_then(|health| health.borrow().clone());
        if let Some(health) = health
            && self.up().has_listeners
        {
            self.put(Slot::Health, self.variant.health(&health));
        }
    }

    /// Ends the stream if a peer has taken none of its bytes since `limit`.
    pub(super) fn end_if_stalled(&self, limit: Instant) {
        let is_stalled = |given: Option<Instant>| given.is_some_and(|since| since < limit);
        let reason = if is_stalled(self.down().given) {
            "Envoy takes no bytes"
        } else if is_stalled(self.up().given) {
            "istiod takes no bytes"
        } else {
            return;
        };
        tracing::warn!(target: "xdsproxy", id = self.id, reason, "stream ended");
        self.end(reason);
    }

    /// Ends the stream from the agent's side: istiod's at once, Envoy's as soon
    /// as it takes what it was sent.
    pub(super) fn end(&self, reason: &'static str) {
        self.down().end(self, unavailable(reason));
        self.close_up();
        self.down_waker.wake();
    }

    /// Nothing more goes to istiod.
    pub(super) fn close_up(&self) {
        self.up().close();
        self.up_waker.wake();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}
