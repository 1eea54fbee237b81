//! Logs in Istio's line format, with a level for each scope.
//!
//! A line is `TIME<TAB>LEVEL<TAB>[SCOPE<TAB>][CALLER<TAB>]MESSAGE[<TAB>KEY=VALUE ...]`.
//! The scope is the `target` of a `tracing` event; an event without an explicit
//! target belongs to the scope `default`, which is not printed.

mod format;
mod levels;
mod target;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use levels::{Level, Levels, ParseError};
pub use target::{Error, Targets};

/// How to log.
#[derive(Debug, Default)]
pub struct Options {
    /// Levels by scope (`--log_output_level`).
    pub levels: Levels,
    /// One JSON object a line (`--log_as_json`).
    pub as_json: bool,
    /// Scopes whose lines say where in the source they come from (`--log_caller`).
    pub callers: Callers,
    /// Where the lines go (`--log_target`).
    pub targets: Targets,
}

/// Scopes whose lines name file and line of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    is_all: bool,
    scopes: Vec<String>,
}

impl Callers {
    /// Reads `default,ads`; `all` stands for every scope.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let scopes: Vec<String> =
            text.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        Self { is_all: scopes.iter().any(|scope| scope == levels::ALL), scopes }
    }

    fn has(&self, target: &str) -> bool {
        let scope = levels::scope(target).unwrap_or(levels::DEFAULT);
        self.is_all || self.scopes.iter().any(|one| one == scope)
    }
}

/// Changes the levels of a running program.
#[derive(Clone, Debug)]
pub struct Handle(Arc<RwLock<Levels>>);

impl Handle {
    /// Sets the level of one scope.
    pub fn set(&self, scope: &str, level: Level) {
        // Levels are plain data: a panic elsewhere leaves them whole.
        let mut levels = self.0.write().unwrap_or_else(PoisonError::into_inner);
        levels.set(scope, level);
        drop(levels);
        tracing::callsite::rebuild_interest_cache();
    }

    /// The level in force for a scope.
    #[must_use]
    pub fn level(&self, scope: &str) -> Level {
        self.0.read().unwrap_or_else(PoisonError::into_inner).of(scope)
    }
}

/// The handle of the log that was started first.
static STARTED: OnceLock<Handle> = OnceLock::new();

/// Changes the levels of this program's log; `None` before [`init`].
#[must_use]
pub fn handle() -> Option<&'static Handle> {
    STARTED.get()
}

/// Starts logging. A second call changes nothing.
pub fn init(options: Options) -> Handle {
    let Options { levels, as_json, callers, targets } = options;
    let handle = Handle(Arc::new(RwLock::new(levels)));
    let layer = Lines { levels: handle.clone(), as_json, callers, targets };
    // Only a second call can fail; the first one's logger stays.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        STARTED.set(handle.clone()).ok();
    }
    handle
}

struct Lines {
    levels: Handle,
    as_json: bool,
    callers: Callers,
    targets: Targets,
}

impl Lines {
    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.levels.0.read().unwrap_or_else(PoisonError::into_inner);
        levels.allow(metadata)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Levels may change at any time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // What no scope shows costs one comparison.
        Some(self.levels.0.read().unwrap_or_else(PoisonError::into_inner).most())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = time::OffsetDateTime::now_utc();
        let with_caller = self.callers.has(event.metadata().target());
        let line = if self.as_json {
            format::json(event, now, with_caller)
        } else {
            format::text(event, now, with_caller)
        };
        self.targets.write(line.as_bytes());
    }
}
