//! Logs in Istio's line format, with a level for each scope.
//!
//! A line is `TIME<TAB>LEVEL<TAB>[SCOPE<TAB>][CALLER<TAB>]MESSAGE[<TAB>KEY=VALUE ...]`.
//! The scope is the `target` of a `tracing` event; an event without an explicit
//! target belongs to the scope `default`, which is not printed.

mod format;
mod levels;
mod target;

use std::collections::BTreeMap;
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
    others: bool,
    scopes: BTreeMap<String, bool>,
}

impl Callers {
    /// Reads `default,ads`; `all` stands for every scope.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut callers = Self::default();
        for scope in text.split(',').map(str::trim).filter(|scope| !scope.is_empty()) {
            callers.set(scope, true);
        }
        callers
    }

    fn set(&mut self, scope: &str, named: bool) {
        if scope == levels::ALL {
            self.others = named;
            self.scopes.clear();
        } else {
            self.scopes.insert(scope.to_owned(), named);
        }
    }

    fn has(&self, scope: &str) -> bool {
        self.scopes.get(scope).copied().unwrap_or(self.others)
    }
}

/// Changes the log of a running program.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Changeable>);

#[derive(Debug)]
struct Changeable {
    levels: RwLock<Levels>,
    callers: RwLock<Callers>,
}

// Levels and scopes are plain data: a panic elsewhere leaves them whole.
impl Handle {
    fn new(levels: Levels, callers: Callers) -> Self {
        Self(Arc::new(Changeable { levels: RwLock::new(levels), callers: RwLock::new(callers) }))
    }

    /// Sets the level of one scope.
    pub fn set(&self, scope: &str, level: Level) {
        let mut levels = self.0.levels.write().unwrap_or_else(PoisonError::into_inner);
        levels.set(scope, level);
        drop(levels);
        tracing::callsite::rebuild_interest_cache();
    }

    /// The level in force for a scope.
    #[must_use]
    pub fn level(&self, scope: &str) -> Level {
        self.0.levels.read().unwrap_or_else(PoisonError::into_inner).of(scope)
    }

    /// Whether lines of a scope shall name their place in the source.
    pub fn set_callers(&self, scope: &str, named: bool) {
        self.0.callers.write().unwrap_or_else(PoisonError::into_inner).set(scope, named);
    }

    /// Whether lines of a scope name their place in the source.
    #[must_use]
    pub fn has_callers(&self, scope: &str) -> bool {
        self.0.callers.read().unwrap_or_else(PoisonError::into_inner).has(scope)
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
    let handle = Handle::new(levels, callers);
    let layer = Lines { handle: handle.clone(), as_json, targets };
    // Only a second call can fail; the first one's logger stays.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        STARTED.set(handle.clone()).ok();
    }
    handle
}

struct Lines {
    handle: Handle,
    as_json: bool,
    targets: Targets,
}

impl Lines {
    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.handle.0.levels.read().unwrap_or_else(PoisonError::into_inner);
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
        Some(self.handle.0.levels.read().unwrap_or_else(PoisonError::into_inner).most())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = time::OffsetDateTime::now_utc();
        let scope = levels::scope(event.metadata().target()).unwrap_or(levels::DEFAULT);
        let with_caller = self.handle.has_callers(scope);
        let line = if self.as_json {
            format::json(event, now, with_caller)
        } else {
            format::text(event, now, with_caller)
        };
        self.targets.write(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_log_changes_scope_by_scope() {
        let handle = Handle::new("ads:debug".parse().unwrap(), Callers::read("ca"));
        assert_eq!((handle.level("ads"), handle.level("ca")), (Level::Debug, Level::Info));
        assert_eq!((handle.has_callers("ads"), handle.has_callers("ca")), (false, true));
        handle.set("ads", Level::None);
        handle.set_callers("ca", false);
        handle.set_callers("ads", true);
        assert_eq!(handle.level("ads"), Level::None);
        assert_eq!((handle.has_callers("ads"), handle.has_callers("ca")), (true, false));
        handle.set_callers("all", true);
        assert!(handle.has_callers("ca") && handle.has_callers("other"));
    }
}
