//! A control plane without sockets: what istiod does for a proxy, in process
//! and in the order of one connection.

mod client;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Key, Kind, Object, Store};
use pilot::cache::{Cache, Now};
use pilot::depend::{Change, Stamps};
use pilot::{Settings, Snapshot};

pub use client::{Pushed, Simulated};

/// Objects with everything derived from them.
#[derive(Debug)]
pub struct Plane {
    /// The objects.
    pub store: Store,
    /// Their indexes.
    pub snapshot: Snapshot,
    stamps: Stamps,
    cache: Arc<Cache>,
}

impl Plane {
    /// Starts with those objects.
    #[must_use]
    pub fn new(settings: &Settings, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut store = Store::default();
        for object in objects {
            store.apply(Arc::new(object));
        }
        let snapshot = Snapshot::build(&store, settings);
        Self { store, snapshot, stamps: Stamps::new(1), cache: Arc::default() }
    }

    /// It, for translation.
    #[must_use]
    pub fn now(&self) -> Now<'_> {
        Now { cache: &self.cache, snapshot: &self.snapshot, stamps: &self.stamps }
    }

    /// What proxies get, by class.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Takes changes as one; `false` when nothing says anything else.
    pub fn change(&mut self, apply: Vec<Object>, delete: &[Key]) -> bool {
        let mut old: BTreeMap<Key, Option<Arc<Object>>> = BTreeMap::new();
        for key in delete {
            let was = self.store.object(key).cloned();
            if self.store.delete(key) {
                old.entry(key.clone()).or_insert(was);
            }
        }
        for object in apply {
            let (key, was) = (object.key.clone(), self.store.object(&object.key).cloned());
            if self.store.apply(Arc::new(object)) {
                old.entry(key).or_insert(was);
            }
        }
        if old.is_empty() {
            return false;
        }
        let kinds: BTreeSet<Kind> = old.keys().map(|key| key.kind).collect();
        let changes: Vec<Change> = old
            .into_iter()
            .map(|(key, old)| Change { new: self.store.object(&key).cloned(), key, old })
            .collect();
        let snapshot = self.snapshot.next(&self.store, &kinds);
        let serial = self.stamps.serial() + 1;
        self.stamps = self.stamps.advance(serial, &self.snapshot, &snapshot, &changes);
        self.snapshot = snapshot;
        self.cache.prune(serial, &self.snapshot);
        true
    }
}

#[cfg(test)]
mod tests;
