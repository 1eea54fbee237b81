//! What the streams have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use runtime::tasks::Tasks;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::dial::Dialer;
use super::own::Variant;
use super::stream::Stream;
use super::wasm::Fetcher;
use super::{Ends, Link};
use crate::metrics::Metrics;

/// How often in the time that a stream may stall such streams are looked for.
const LOOKS: u32 = 4;

/// Everything that is there once.
#[derive(Debug)]
pub struct Shared {
    pub(super) ends: Ends,
    pub(super) dialer: Arc<Dialer>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    last: u64,
    open: BTreeMap<u64, Weak<Stream>>,
    /// How many of them istiod has answered.
    connected: usize,
}

impl Shared {
    pub(super) fn new(mut ends: Ends, dialer: Dialer, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        // ECDS passes like any other type when nothing is to be done to it.
        ends.extensions = ends.extensions.filter(Fetcher::is_enabled);
        let dialer = Arc::new(dialer);
        Self { ends, dialer, metrics, tasks, streams: Mutex::default() }
    }

    fn tell(&self, link: Link) {
        if let Some(sender) = &self.ends.link {
            sender.send_replace(link);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of a client, unless there are `limit` already.
    pub(super) fn open(
        self: &Arc<Self>,
        variant: Variant,
        envoy: Incoming,
        limit: usize,
    ) -> Option<Arc<Stream>> {
        let mut streams = self.streams();
        if streams.open.len() >= limit {
            return None;
        }
        streams.last += 1;
        let stream = Arc::new(Stream::new(streams.last, variant, self.clone(), envoy));
        streams.open.insert(stream.id, Arc::downgrade(&stream));
        Some(stream)
    }

    pub(super) fn forget(&self, id: u64) {
        self.streams().open.remove(&id);
    }

    /// istiod has answered on another stream.
    pub(super) fn connected(&self) {
        self.streams().connected += 1;
        self.tell(Link::Connected);
    }

    /// A stream with istiod is over.
    pub(super) fn disconnected(&self) {
        let mut streams = self.streams();
        streams.connected = streams.connected.saturating_sub(1);
        if streams.connected == 0 {
            self.tell(Link::Lost { since: Instant::now() });
        }
    }

    fn each(&self, act: impl Fn(&Stream)) {
        let open: Vec<_> = self.streams().open.values().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|stream| act(stream));
    }

    /// Ends streams that stall, and tells istiod of the workload's health.
    pub(super) async fn watch(self: Arc<Self>, stall: Duration) {
        let mut health = self.ends.health.clone();
        // Goes on whatever the health does meanwhile.
        let mut looks = interval((stall / LOOKS).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = async {
                match &mut health {
                    Some(health) => health.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_open = changed => {
                    if is_open {
                        self.each(Stream::tell_health);
                    } else {
                        health = None;
                    }
                }
                _ = looks.tick() => {
                    self.dialer.prune();
                    if let Some(limit) = Instant::now().checked_sub(stall) {
                        self.each(|stream| stream.end_if_stalled(limit));
                    }
                }
            }
        }
    }
}
