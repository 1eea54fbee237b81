//! Modules that are there, and those on their way: one download for all who
//! wish the same.

mod fetch;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::oci::{self, Reference};
use super::plugin::{Policy, Secret, Wish};
use super::{Settings, http, store};
use crate::metrics::Metrics;
use crate::metrics::wasm::Fetched;
use table::{Key, Table};

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The text is no URL of a kind that is known.
    #[error("URL that begins with {0:?}: expected http://, https:// or oci:// and a host")]
    Url(String),
    /// The reference names no image.
    #[error("oci://{0}")]
    Reference(oci::BadReference),
    /// The download failed.
    #[error("{0}")]
    Http(#[from] http::Error),
    /// The registry has no such image, or does not give it.
    #[error("image {reference}: {source}")]
    Image {
        /// The image.
        reference: String,
        /// Why.
        source: oci::Error,
    },
    /// The module is another one.
    #[error("{url}: checksum {got}, expected {expected}")]
    Checksum {
        /// Where from.
        url: String,
        /// What came.
        got: String,
        /// What should have.
        expected: String,
    },
    /// What came cannot be stored or is no module.
    #[error("{url}: {source}")]
    Store {
        /// Where from.
        url: String,
        /// Why.
        source: store::Error,
    },
    /// It takes too long.
    #[error("{url}: not there within {limit:?}")]
    Timeout {
        /// Where from.
        url: String,
        /// The limit.
        limit: std::time::Duration,
    },
    /// The agent ends.
    #[error("the agent ends")]
    Ended,
}

impl Failure {
    fn result(&self) -> Fetched {
        match self {
            Self::Image { source: oci::Error::Blob(_), .. } => Fetched::download_failure,
            Self::Reference(_) | Self::Image { .. } => Fetched::manifest_failure,
            Self::Checksum { .. } => Fetched::checksum_mismatched,
            Self::Store { source: store::Error::NotWasm | store::Error::Unpack(_), .. } => {
                Fetched::fetch_failure
            }
            _ => Fetched::download_failure,
        }
    }
}

/// A failure that all see who wished the same.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Failure>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a module comes from.
#[derive(Clone, Debug)]
enum Source {
    Web(::http::Uri),
    Image(Reference),
}

impl Source {
    fn of(url: &str) -> Result<Self, Failure> {
        if let Some(reference) = url.strip_prefix("oci://") {
            return reference.parse().map(Self::Image).map_err(Failure::Reference);
        }
        let parsed = url.parse::<::http::Uri>().ok();
        let parsed = parsed.filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        // Not shown further: it may hold a password.
        let start = || url.split([':', '/', '@']).next().unwrap_or_default().to_owned();
        parsed.filter(|url| !http::host(url).is_empty()).map(Self::Web).ok_or_else(|| Failure::Url(start()))
    }

    /// What is the same for all versions of a module.
    fn name(&self, url: &str) -> String {
        match self {
            Self::Web(_) => url.to_owned(),
            Self::Image(reference) => format!("oci://{}", reference.repository()),
        }
    }

    /// For messages.
    fn shown(&self) -> String {
        match self {
            Self::Web(url) => http::shown(url),
            Self::Image(reference) => format!("oci://{reference}"),
        }
    }
}

/// What a download is known by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Flight {
    url: String,
    checksum: Option<String>,
    /// Hash of the secret: others must not get what only one may see.
    secret: Option<String>,
}

/// A module: where it is, and its checksum.
type Found = (PathBuf, String);
type Landing = watch::Receiver<Option<Result<Found, Shared>>>;

#[derive(Default)]
struct State {
    table: Table,
    flights: HashMap<Flight, Landing>,
    is_purging: bool,
}

/// The cache.
pub(super) struct Cache {
    settings: Settings,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache.
    pub(super) fn new(settings: Settings, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self { settings, tasks, metrics, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with the module that is wished.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn get(self: &Arc<Self>, wish: Wish) -> Result<PathBuf, Shared> {
        let source = Source::of(&wish.url).map_err(|failure| Shared(Arc::new(failure)))?;
        if let Some((path, _)) = self.look_up(&source, &wish, wish.checksum.as_deref()) {
            return Ok(path);
        }
        let shown = source.shown();
        let (limit, url) = (wish.timeout, shown.clone());
        let mut landing = self.flight(source, &wish);
        let landed = tokio::time::timeout(limit, landing.wait_for(Option::is_some)).await;
        let landed = match landed {
            Ok(Ok(landed)) => landed.clone().unwrap_or_else(|| Err(Shared(Arc::new(Failure::Ended)))),
            Ok(Err(_)) => Err(Shared(Arc::new(Failure::Ended))),
            Err(_) => Err(Shared(Arc::new(Failure::Timeout { url, limit }))),
        };
        let (path, checksum) = landed?;
        self.state().table.remember(&wish, &checksum);
        Ok(path)
    }

    /// A module that is there and still as wished.
    fn look_up(&self, source: &Source, wish: &Wish, checksum: Option<&str>) -> Option<Found> {
        let digest = match source {
            Source::Image(reference) => reference.digest(),
            Source::Web(_) => None,
        };
        let any_version = match (wish.policy, source) {
            (Policy::IfNotPresent, _) => true,
            (Policy::Always, _) => false,
            (Policy::Unspecified, Source::Image(reference)) => !reference.is_latest(),
            (Policy::Unspecified, Source::Web(_)) => true,
        };
        let name = source.name(&wish.url);
        let found = {
            let mut state = self.state();
            let found = state.table.look_up(name, wish, checksum.or(digest), any_version, Instant::now());
            self.metrics.wasm.entries(state.table.len());
            found
        };
        self.metrics.wasm.lookup(found.is_some());
        found
    }

    /// The download for that wish: one that is under way, or a new one.
    fn flight(self: &Arc<Self>, source: Source, wish: &Wish) -> Landing {
        let flight = Flight {
            url: wish.url.clone(),
            checksum: wish.checksum.clone(),
            secret: wish.secret.as_ref().map(|Secret(text)| store::sha256(text.as_bytes())),
        };
        let mut state = self.state();
        // One that is closed without a result broke off.
        if let Some(landing) = state.flights.get(&flight).filter(|landing| landing.has_changed().is_ok()) {
            return landing.clone();
        }
        let (sender, landing) = watch::channel(None);
        state.flights.insert(flight.clone(), landing.clone());
        if !state.is_purging {
            state.is_purging = true;
            drop(self.tasks.spawn("wasm purge", self.clone().purge()));
        }
        drop(state);
        let (cache, wish) = (self.clone(), wish.clone());
        let run = async move {
            let result = cache.fetch(&source, &wish).await;
            let result = result.map_err(|failure| Shared(Arc::new(failure)));
            let mut state = cache.state();
            if let Ok((_, checksum)) = &result {
                state.table.remember(&wish, checksum);
            }
            state.flights.remove(&flight);
            drop(state);
            sender.send_replace(Some(result));
        };
        drop(self.tasks.spawn("wasm download", run));
        landing
    }

    async fn fetch(&self, source: &Source, wish: &Wish) -> Result<Found, Failure> {
        let (url, limit) = (source.shown(), wish.timeout);
        info!(target: "wasm", url, "fetching");
        let fetched = tokio::time::timeout(limit, async {
            match source {
                Source::Web(web) => self.fetch_web(web, source, wish).await,
                Source::Image(image) => self.fetch_image(image, source, wish).await,
            }
        });
        let result = match fetched.await {
            Ok(result) => result,
            Err(_) => Err(Failure::Timeout { url: url.clone(), limit }),
        };
        match &result {
            Ok((path, _)) => {
                info!(target: "wasm", url, path = %path.display(), "fetched");
            }
            Err(failure) => self.metrics.wasm.fetched(failure.result()),
        }
        result
    }

    /// Puts a module into its place and into the table.
    fn add(
        &self,
        source: &Source,
        wish: &Wish,
        checksum: &str,
        module: store::Module,
    ) -> Result<Found, Failure> {
        let key = Key { name: source.name(&wish.url), checksum: checksum.to_owned() };
        let path = store::place(&self.settings.dir, &key.name, checksum);
        let failed = |error| Failure::Store { url: source.shown(), source: error };
        module.keep(&path).map_err(failed)?;
        let mut state = self.state();
        state.table.add(key, path.clone(), &wish.url, Instant::now());
        self.metrics.wasm.entries(state.table.len());
        drop(state);
        self.metrics.wasm.fetched(Fetched::success);
        Ok((path, checksum.to_owned()))
    }

    /// Removes what nobody asked for in a long time, for ever.
    async fn purge(self: Arc<Self>) {
        let Settings { expiry, purge_interval, .. } = self.settings;
        let mut ticks = tokio::time::interval_at(Instant::now() + purge_interval, purge_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (mut old, kept) = {
                let mut state = self.state();
                let old = state.table.take_expired(Instant::now(), expiry);
                self.metrics.wasm.entries(state.table.len());
                (old, state.table.paths())
            };
            let oldest = SystemTime::now().checked_sub(expiry).unwrap_or(SystemTime::UNIX_EPOCH);
            let left = store::leftovers(&self.settings.dir, oldest);
            old.extend(left.into_iter().filter(|path| !kept.contains(path)));
            old.sort();
            old.dedup();
            for path in old {
                match std::fs::remove_file(&path) {
                    Ok(()) => debug!(target: "wasm", path = %path.display(), "removed"),
                    Err(error) => warn!(target: "wasm", path = %path.display(), %error, "not removed"),
                }
            }
        }
    }
}
