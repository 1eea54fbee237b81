//! Key sets of token issuers: fetched from the URIs that RequestAuthentications
//! name, and again from time to time. Each URI has a task of its own, so that
//! one issuer that fails holds up no other; what was good stays.

mod client;
mod guard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::Store;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::metrics::Metrics;

pub(crate) use client::shown;
pub use client::{Client, Error};
pub use guard::Guard;
pub use runtime::address::Network;

/// Waits after failures, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest time for one answer, whatever a rule says.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys that could not be fetched again for so long are not trusted any more.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sets that no rule names and that are kept all the same.
const MOST_KEPT: usize = 64;

/// How keys are fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which keys are fetched here.
    pub fetch: pilot::KeyFetch,
    /// Time after which keys are fetched again.
    pub refresh: Duration,
    /// Addresses that are not asked.
    pub guard: Guard,
    /// Whether the servers' certificates are not verified.
    pub insecure: bool,
}

/// The key sets that are known.
pub type Sets = Arc<pilot::KeySets>;

/// The keys of all issuers that the objects in force name.
#[derive(Debug)]
pub struct Keys {
    fetchers: BTreeMap<String, Fetcher>,
    /// Fetchers that were started so far.
    started: u64,
    sets: Sets,
    /// When each set was fetched last. It outlives fetchers: a set grows old
    /// whoever has fetched it.
    fetched: BTreeMap<String, Instant>,
    results: mpsc::Receiver<Found>,
    shared: Shared,
}

/// What every fetcher has.
#[derive(Clone, Debug)]
struct Shared {
    tasks: Tasks,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    tell: mpsc::Sender<Found>,
}

/// The task of one URI.
#[derive(Debug)]
struct Fetcher {
    timeout: Duration,
    serial: u64,
    /// Whether it has tried once.
    has_tried: bool,
    task: JoinHandle<Option<()>>,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a fetcher has found: keys, none to be trusted any more, or nothing new.
#[derive(Debug)]
struct Found {
    uri: String,
    serial: u64,
    keys: Option<Option<String>>,
    /// When the server answered.
    at: Instant,
}

/// What a fetcher is started for.
#[derive(Debug)]
struct Wanted {
    uri: String,
    serial: u64,
    /// Time for one answer.
    timeout: Duration,
    /// When the keys that are known were fetched by another; `None` when none are known.
    fetched: Option<Instant>,
}

impl Keys {
    /// Nobody's keys yet; fetchers run as `tasks`.
    #[must_use]
    pub fn new(settings: Settings, metrics: Arc<Metrics>, tasks: Tasks) -> Self {
        let (tell, results) = mpsc::channel(64);
        let shared = Shared { tasks, settings: Arc::new(settings), metrics, tell };
        Self {
            fetchers: BTreeMap::new(),
            started: 0,
            sets: Sets::default(),
            fetched: BTreeMap::new(),
            results,
            shared,
        }
    }

    /// The sets that are known.
    #[must_use]
    pub fn sets(&self) -> Sets {
        self.sets.clone()
    }

    /// Follows the URIs that the objects name, and no others; `true` when sets were
    /// forgotten. A rule that is replaced is soon there again: until then its keys
    /// stay, as long as they would be trusted, and of many the youngest.
    pub fn follow(&mut self, store: &Store) -> bool {
        let wanted = pilot::snapshot::jwt::key_uris(store, self.shared.settings.fetch);
        let has_forgotten = self.forget(&wanted);
        self.fetchers.retain(|uri, fetcher| wanted.get(uri) == Some(&fetcher.timeout));
        for (uri, timeout) in wanted {
            if self.fetchers.contains_key(&uri) {
                continue;
            }
            self.started += 1;
            let serial = self.started;
            let wish = Wanted {
                uri: uri.clone(),
                serial,
                timeout: timeout.min(MAX_TIMEOUT),
                fetched: self.fetched.get(&uri).copied(),
            };
            let task = self.shared.tasks.spawn("keys of an issuer", fetch(self.shared.clone(), wish));
            self.fetchers.insert(uri, Fetcher { timeout, serial, has_tried: false, task });
        }
        has_forgotten
    }

    /// Forgets sets without a fetcher that judges them; whether there were any.
    fn forget(&mut self, wanted: &BTreeMap<String, Duration>) -> bool {
        let is_idle = |uri: &String| !wanted.contains_key(uri) || !self.fetchers.contains_key(uri);
        let idle = self.fetched.iter().filter(|(uri, _)| is_idle(uri));
        let mut idle: Vec<(Instant, String)> = idle.map(|(uri, at)| (*at, uri.clone())).collect();
        idle.sort_unstable_by(|one, other| other.cmp(one));
        let mut has_forgotten = false;
        for (place, (at, uri)) in idle.into_iter().enumerate() {
            if at.elapsed() > MAX_AGE || (place >= MOST_KEPT && !wanted.contains_key(&uri)) {
                self.fetched.remove(&uri);
                has_forgotten |= Arc::make_mut(&mut self.sets).remove(&uri).is_some();
            }
        }
        has_forgotten
    }

    /// Waits until a set has changed.
    pub async fn changed(&mut self) {
        loop {
            // The channel never ends: we hold a sender.
            let Some(found) = self.results.recv().await else { return std::future::pending().await };
            if self.take(found) {
                return;
            }
        }
    }

    /// Waits until each issuer has been asked once, but not longer than `limit`.
    pub async fn settle(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.fetchers.values().any(|fetcher| !fetcher.has_tried) {
            let Ok(Some(found)) = tokio::time::timeout_at(deadline, self.results.recv()).await else {
                return;
            };
            self.take(found);
        }
    }

    /// Whether a set has changed.
    fn take(&mut self, found: Found) -> bool {
        // The task of a rule that is no more may have told something in its last moment.
        let Some(fetcher) = self.fetchers.get_mut(&found.uri) else { return false };
        if fetcher.serial != found.serial {
            return false;
        }
        fetcher.has_tried = true;
        let Some(keys) = found.keys else { return false };
        match keys {
            Some(_) => self.fetched.insert(found.uri.clone(), found.at),
            None => self.fetched.remove(&found.uri),
        };
        if self.sets.get(&found.uri) == keys.as_ref() {
            return false;
        }
        let sets = Arc::make_mut(&mut self.sets);
        match keys {
            Some(keys) => sets.insert(found.uri, keys),
            None => sets.remove(&found.uri),
        };
        true
    }
}

/// Fetches for ever.
async fn fetch(shared: Shared, wanted: Wanted) {
    let Wanted { uri, serial, timeout, mut fetched } = wanted;
    let Shared { settings, metrics, tell, tasks } = shared;
    let client = Client { guard: settings.guard.clone(), insecure: settings.insecure, tasks };
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut is_failing = false;
    loop {
        let result = client.keys(&uri, timeout).await;
        let at = Instant::now();
        metrics.fetched_keys(result.is_ok());
        let (keys, wait) = match result {
            Ok(keys) => {
                if is_failing || fetched.is_none() {
                    info!(target: "jwks", uri = shown(&uri), "keys fetched");
                }
                is_failing = false;
                fetched = Some(at);
                backoff.reset();
                (Some(Some(keys)), settings.refresh)
            }
            Err(error) => {
                if !is_failing {
                    let tokens =
                        if fetched.is_some() { "the last keys stay" } else { "every token is refused" };
                    warn!(target: "jwks", uri = shown(&uri), %error, "keys cannot be fetched: {tokens}");
                }
                is_failing = true;
                let is_old = fetched.is_some_and(|fetched| at.duration_since(fetched) > MAX_AGE);
                if is_old {
                    fetched = None;
                    warn!(target: "jwks", uri = shown(&uri), "the last keys are too old: every token is refused");
                }
                (is_old.then_some(None), backoff.next_wait())
            }
        };
        if tell.send(Found { uri: uri.clone(), serial, keys, at }).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests;
