//! Logs in Istio's line format, with a level for each scope.
//!
//! A line is `TIME<TAB>LEVEL<TAB>[SCOPE<TAB>]MESSAGE[<TAB>KEY=VALUE...]`. The
//! scope is the `target` of a `tracing` event; an event without an explicit
//! target belongs to the scope `default`, which is not printed.

mod format;
mod levels;

use std::io::Write as _;
use std::sync::{Arc, RwLock};

use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use levels::{Level, Levels, ParseError};

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Levels by scope (`--log_output_level`).
    pub levels: Levels,
    /// One JSON object a line (`--log_as_json`).
    pub as_json: bool,
}

/// Changes the levels of a running program.
#[derive(Clone, Debug)]
pub struct Handle(Arc<RwLock<Levels>>);

impl Handle {
    /// Sets the level of one scope.
    pub fn set(&self, scope: &str, level: Level) {
        // Levels are plain data: a panic elsewhere leaves them whole.
        let mut levels = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        levels.set(scope, level);
        drop(levels);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Starts logging to standard output. A second call changes nothing.
pub fn init(options: Options) -> Handle {
    let Options { levels, as_json } = options;
    let handle = Handle(Arc::new(RwLock::new(levels)));
    let layer = Lines { levels: handle.clone(), as_json };
    // Only a second call can fail; the first one's logger stays.
    drop(tracing_subscriber::registry().with(layer).try_init());
    handle
}

struct Lines {
    levels: Handle,
    as_json: bool,
}

impl Lines {
    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.levels.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
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

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = time::OffsetDateTime::now_utc();
        let line = if self.as_json { format::json(event, now) } else { format::text(event, now) };
        // Nobody is left to be told when standard output is gone.
        drop(std::io::stdout().lock().write_all(line.as_bytes()));
    }
}
