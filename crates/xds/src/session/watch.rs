//! One subscription: its names, what the client has, what it refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::TooManyNames;
use crate::{Resource, TypeStatus};

/// Most names of one subscription: several times the clusters of a mesh with
/// thousands of services.
pub const MAX_NAMES: usize = 100_000;
/// Most bytes of all names of one subscription.
pub const MAX_NAME_BYTES: usize = 16 * 1024 * 1024;

/// One subscription.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) wildcard: bool,
    pub(super) names: Names,
    /// What the client has, as far as it was told.
    pub(super) has: BTreeMap<Arc<str>, Held>,
    /// Sent again with the next answer even when unchanged.
    pub(super) force: BTreeSet<Arc<str>>,
    /// Gone, but not removed from the client yet.
    pub(super) doomed: BTreeSet<Arc<str>>,
    pub(super) refusals: Refusals,
    pub(super) status: TypeStatus,
}

/// A resource that the client was sent.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) version: u64,
    /// Kept only where a whole state must be repeated (state of the world).
    pub(super) body: Option<Box<Bytes>>,
    /// Serial of the response that brought it first.
    pub(super) since: u64,
    /// Serial of the response that brought this version.
    pub(super) sent: u64,
}

impl Watch {
    /// Books that a response was accepted.
    pub(super) fn accept(&mut self, serial: u64) {
        self.refusals.accept(serial, |name| self.has.get(name).map(|held| held.sent));
        self.status.last_error = self.refusals.last_error();
    }

    /// Books that a response was refused; `None` for one that cannot be told.
    /// What was sent again since then is judged by the answer to the later response.
    pub(super) fn refuse(&mut self, serial: Option<u64>, latest: u64, error: &str) {
        let names = self.has.iter().filter(|(_, held)| Some(held.sent) == serial);
        let names = names.map(|(name, _)| name.clone());
        self.refusals.refuse(serial.unwrap_or(latest), names, error);
        self.status.last_error = self.refusals.last_error();
    }

    /// Forgets what the client does not want any more.
    pub(super) fn keep(&mut self, wants: impl Fn(&str) -> bool) {
        self.has.retain(|name, _| wants(name));
        self.force.retain(|name| wants(name));
        self.doomed.retain(|name| wants(name));
        self.refusals.by_name.retain(|name, _| wants(name));
        self.status.last_error = self.refusals.last_error();
    }

    /// Gives back the room that insertions one by one have left in the trees,
    /// which is nearly half: worth it when most entries are new.
    pub(super) fn compact(&mut self) {
        self.has = std::mem::take(&mut self.has).into_iter().collect();
        self.names.set = std::mem::take(&mut self.names.set).into_iter().collect();
    }

    /// Forgets one resource.
    pub(super) fn forget(&mut self, name: &str) {
        self.has.remove(name);
        self.force.remove(name);
        self.doomed.remove(name);
        self.refusals.by_name.remove(name);
        self.status.last_error = self.refusals.last_error();
    }

    /// Everything that a state-of-the-world client has; its bodies are kept.
    pub(super) fn state(&self) -> Vec<Resource> {
        self.has.iter().filter_map(|(name, held)| held.resource(name)).collect()
    }
}

impl Held {
    pub(super) fn resource(&self, name: &Arc<str>) -> Option<Resource> {
        Some(Resource {
            name: name.clone(),
            body: Bytes::clone(self.body.as_deref()?),
            version: self.version,
            awaits_endpoints: false,
        })
    }
}

/// Names that were subscribed to, with their size.
#[derive(Debug, Default)]
pub(super) struct Names {
    set: BTreeSet<Arc<str>>,
    bytes: usize,
}

impl Names {
    pub(super) fn get(&self) -> &BTreeSet<Arc<str>> {
        &self.set
    }

    pub(super) fn insert(&mut self, name: Arc<str>) {
        let length = name.len();
        if self.set.insert(name) {
            self.bytes += length;
        }
    }

    /// Keeps this text of the name instead of its own.
    pub(super) fn share(&mut self, name: &Arc<str>) {
        if self.set.contains(name) {
            self.set.replace(name.clone());
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let there = self.set.remove(name);
        if there {
            self.bytes -= name.len();
        }
        there
    }

    /// Fails when there are too many.
    pub(super) fn check(&self) -> Result<(), TooManyNames> {
        if self.set.len() > MAX_NAMES || self.bytes > MAX_NAME_BYTES {
            return Err(TooManyNames { names: self.set.len(), bytes: self.bytes });
        }
        Ok(())
    }
}

impl FromIterator<Arc<str>> for Names {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            all.insert(name);
        }
        all
    }
}

/// What the client refused and has not accepted since. Bounded by the names
/// that the client has.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_name: BTreeMap<Arc<str>, Refusal>,
    /// Of a response of which the client has nothing any more.
    nameless: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    /// Serial of the first refused response: the client still uses what came before it.
    since: u64,
    /// Serial of the last one.
    last: u64,
    error: Arc<str>,
}

impl Refusals {
    fn refuse(&mut self, serial: u64, names: impl Iterator<Item = Arc<str>>, error: &str) {
        let error: Arc<str> = error.into();
        let mut is_nameless = true;
        for name in names {
            is_nameless = false;
            let since = self.by_name.get(&name).map_or(serial, |refusal| refusal.since);
            self.by_name.insert(name, Refusal { since, last: serial, error: error.clone() });
        }
        if is_nameless {
            self.nameless = Some(Refusal { since: serial, last: serial, error });
        }
    }

    /// `sent` tells in which response a resource came last, if it is still there.
    fn accept(&mut self, serial: u64, sent: impl Fn(&str) -> Option<u64>) {
        self.by_name.retain(|name, _| sent(name).is_some_and(|sent| sent != serial));
        self.nameless.take_if(|refusal| refusal.last < serial);
    }

    fn all(&self) -> impl Iterator<Item = &Refusal> {
        self.by_name.values().chain(&self.nameless)
    }

    fn last_error(&self) -> Option<String> {
        self.all().max_by_key(|refusal| refusal.last).map(|refusal| refusal.error.to_string())
    }

    /// Serial up to which the client may still use what it was sent: each
    /// refused resource is that of before its first refusal.
    pub(super) fn in_use_until(&self) -> Option<u64> {
        self.all().map(|refusal| refusal.since).max()
    }
}
