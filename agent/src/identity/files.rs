//! Certificates, keys and roots that other programs bring as files: read,
//! checked, watched. What is good is kept until something better is there:
//! files that are removed or half written change nothing.

mod keep;
pub mod material;
mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::sync::watch;

pub use material::{Material, Pair, Paths};
pub use source::run;

use crate::metrics::files::Files as Metrics;

/// What is known of some files.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The newest that was good; `None` until there was any.
    pub material: Option<Arc<Material>>,
    /// Why what is there now cannot be used; `None` when it can, or when files
    /// that need not be there are not.
    pub failure: Option<String>,
}

/// What is known of some files now; it changes when they do.
pub type Current = watch::Receiver<State>;

/// The files that somebody follows, each read once however many follow it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Files,
    /// Time that writers have between the first change and the last.
    debounce: Duration,
    tasks: Tasks,
    metrics: Metrics,
    followed: Mutex<BTreeMap<Paths, watch::Sender<State>>>,
}

impl Store {
    /// A store that reads nothing yet.
    #[must_use]
    pub fn new(files: Files, debounce: Duration, tasks: Tasks, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { files, debounce, tasks, metrics, followed: Mutex::default() }))
    }

    /// Follows files: they are read before this returns, and from then on
    /// until the last follower is gone.
    #[must_use]
    pub fn follow(&self, paths: &Paths) -> Current {
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = followed.get(paths) {
            return sender.subscribe();
        }
        let changes = self.0.files.watch(&paths.all());
        let (sender, current) = watch::channel(State::default());
        followed.insert(paths.clone(), sender.clone());
        let mut keeper = keep::Keeper::new(self.clone(), paths.clone(), changes, sender);
        keeper.read();
        drop(self.0.tasks.spawn("files", keeper.run()));
        current
    }

    /// Forgets files that nobody follows; `false` when somebody does again.
    fn forget(&self, paths: &Paths) -> bool {
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.get(paths).is_some_and(|sender| sender.receiver_count() > 0) {
            return false;
        }
        followed.remove(paths);
        self.0.metrics.forget(&paths.to_string());
        true
    }
}

#[cfg(test)]
mod tests;
