//! Follows the files of one thing.

use std::sync::Arc;
use std::time::Duration;

use runtime::watch::files::Changes;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Material, Paths, State, Store};

/// How long files may be incomplete before that is worth a warning.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait between two tries to read them.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Between two tries after that: what fails for want of a descriptor or of
/// memory is mended without a change of the file.
const AGAIN: Duration = Duration::from_secs(30);

/// Reads files again whenever they change.
pub(super) struct Keeper {
    store: Store,
    paths: Paths,
    changes: Changes,
    state: watch::Sender<State>,
    /// What was said of the files last.
    told: String,
}

impl Keeper {
    pub(super) fn new(store: Store, paths: Paths, changes: Changes, state: watch::Sender<State>) -> Self {
        Self { store, paths, changes, state, told: String::new() }
    }

    /// Until nobody follows the files any more.
    pub(super) async fn run(mut self) {
        let mut has_changed = true;
        loop {
            if self.has_failed() && std::mem::take(&mut has_changed) {
                self.retry().await;
            }
            tokio::select! {
                () = self.changes.changed() => {
                    tokio::time::sleep(self.store.0.debounce).await;
                    self.read();
                    has_changed = true;
                }
                () = tokio::time::sleep(AGAIN), if self.has_failed() => self.read(),
                () = self.state.closed() => {
                    if self.store.forget(&self.paths) {
                        return;
                    }
                    // Somebody has come who waits for them.
                    has_changed = true;
                }
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.state.borrow().failure.is_some()
    }

    /// Tries for a while: a writer may be between two files.
    async fn retry(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut wait = self.store.0.debounce.max(Duration::from_millis(1));
        while self.has_failed() {
            if Instant::now() >= end {
                return self.tell();
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(MAX_WAIT),
                () = self.changes.changed() => tokio::time::sleep(self.store.0.debounce).await,
                // The caller looks whether somebody has come.
                () = self.state.closed() => return,
            }
            self.read();
        }
    }

    /// Says what is wrong, unless it was said already.
    fn tell(&mut self) {
        self.store.0.metrics.secret_failed();
        let state = self.state.borrow();
        let error = state.failure.clone().unwrap_or_default();
        if self.told == error {
            return;
        }
        if state.material.is_some() {
            warn!(target: "cache", error, "files have changed and cannot be used; what they held before stays in force");
        } else {
            warn!(target: "cache", error, "files cannot be used; waiting for them to change");
        }
        drop(state);
        self.told = error;
    }

    /// Reads the files and publishes what is new.
    pub(super) fn read(&mut self) {
        match self.paths.read() {
            Ok((material, problems)) => self.publish(material, &problems),
            Err(error) => {
                let is_none =
                    self.paths.is_optional() && error.is_missing() && self.state.borrow().material.is_none();
                let failure = (!is_none).then(|| error.to_string());
                self.state.send_if_modified(|state| {
                    let is_new = state.failure != failure;
                    state.failure = failure;
                    is_new
                });
            }
        }
    }

    fn publish(&mut self, material: Material, problems: &[String]) {
        self.told.clear();
        let resource = self.paths.to_string();
        let is_new = self.state.borrow().material.as_deref() != Some(&material);
        if is_new {
            for problem in problems {
                warn!(target: "cache", resource, problem, "left out of the roots");
            }
            match &material {
                Material::Pair(pair) => {
                    let leaf = &pair.leaf;
                    let expires = time::OffsetDateTime::from(leaf.not_after);
                    info!(target: "cache", resource, serial = leaf.serial, uris = ?leaf.uris, %expires, "read certificate from file");
                    self.store.0.metrics.expires(&resource, leaf.not_after);
                }
                Material::Roots(_) | Material::Revoked(_) => {
                    info!(target: "cache", resource, "read from file");
                }
            }
        }
        self.state.send_if_modified(|state| {
            let is_failure_over = state.failure.take().is_some();
            if is_new {
                state.material = Some(Arc::new(material));
            }
            is_new || is_failure_over
        });
    }
}
