//! What was generated, for all proxies that get the same.
//!
//! A list is generated once for each class of proxies and stays right until the
//! [`Stamps`] say that something it depends on has changed. A list that comes
//! out as before is the same list, so that who has it compares one pointer.

mod client;
mod contents;
mod interner;
mod named;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use names::TypeUrl;
use xds::Resource;
use xds::session::Wanted;

pub use client::{Client, Fresh};

use self::interner::Interner;
use self::named::Named;
use crate::class::Class;
use crate::depend::{Part, Stamps};
use crate::finding::Finding;
use crate::generate::{self, Side};
use crate::proxy::Proxy;
use crate::scope::View;
use crate::snapshot::Snapshot;

/// Resources of a type, in their order.
pub(crate) type List = Arc<[Resource]>;

/// A class that nobody has asked for during so many snapshots is forgotten.
const KEPT: u64 = 32;
/// Hosts that are gone and may be remembered all the same.
const FEW_HOSTS: usize = 1024;

/// A snapshot with what is known of its results.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// Results.
    pub cache: &'a Cache,
    /// The objects.
    pub snapshot: &'a Snapshot,
    /// When what has changed.
    pub stamps: &'a Stamps,
}

/// Results by class. Shared by all snapshots and all connections.
#[derive(Debug, Default)]
pub struct Cache {
    classes: Mutex<HashMap<Class, Arc<Shared>>>,
    interner: Interner,
    generated: AtomicU64,
}

/// What the proxies of a class get.
#[derive(Debug)]
pub(crate) struct Shared {
    used: AtomicU64,
    /// Counts how often endpoint assignments were forgotten.
    generation: AtomicU64,
    namespace: String,
    is_router: bool,
    view: Mutex<Option<(u64, Arc<View>)>>,
    clusters: Mutex<Slot>,
    listeners: Mutex<Slot>,
    names: Mutex<Slot>,
    routes: Mutex<Named>,
    /// Of applications that speak xDS themselves.
    asked_clusters: Mutex<Named>,
    asked_listeners: Mutex<Named>,
    endpoints: Mutex<Named>,
}

/// A list and the serial of the snapshot it was made from.
#[derive(Debug, Default)]
struct Slot {
    serial: u64,
    list: Option<List>,
    findings: Vec<Finding>,
}

/// Numbers of a cache, for debug pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Classes of proxies.
    pub classes: usize,
    /// Different resources.
    pub resources: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// Lists, or parts of such, that were generated so far.
    pub generated: u64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic has left behind is older than its stamps or whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// What is in it.
    #[must_use]
    pub fn size(&self) -> Size {
        let (resources, bytes) = self.interner.size();
        Size {
            classes: lock(&self.classes).len(),
            resources,
            bytes,
            generated: self.generated.load(Ordering::Relaxed),
        }
    }

    /// Forgets what nobody uses any more; to be called for each new snapshot.
    pub fn prune(&self, serial: u64, snapshot: &Snapshot) {
        let mut classes = lock(&self.classes);
        classes.retain(|_, shared| {
            Arc::strong_count(shared) > 1 || shared.used.load(Ordering::Relaxed) + KEPT > serial
        });
        for shared in classes.values() {
            // Most of its hosts are gone.
            if shared.hosts() > 2 * snapshot.services.len() + FEW_HOSTS {
                shared.forget_endpoints();
            }
        }
        drop(classes);
        self.interner.prune();
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shared in lock(&self.classes).values() {
            *lock(&shared.view) = None;
            for slot in [&shared.clusters, &shared.listeners, &shared.names] {
                *lock(slot) = Slot::default();
            }
            for named in [&shared.routes, &shared.asked_clusters, &shared.asked_listeners] {
                *lock(named) = Named::default();
            }
            shared.forget_endpoints();
        }
        self.interner.prune();
    }

    fn shared(&self, class: Class, proxy: &Proxy) -> Arc<Shared> {
        let mut classes = lock(&self.classes);
        let new = || Arc::new(Shared::new(proxy));
        classes.entry(class).or_insert_with(new).clone()
    }

    fn count(&self) {
        self.generated.fetch_add(1, Ordering::Relaxed);
    }

    /// The same bytes for what is the same.
    fn intern(&self, resources: Vec<Resource>) -> Vec<Resource> {
        resources.into_iter().map(|resource| self.interner.intern(resource)).collect()
    }
}

impl Shared {
    fn new(proxy: &Proxy) -> Self {
        Self {
            used: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            namespace: proxy.namespace.clone(),
            is_router: proxy.kind == crate::proxy::ProxyKind::Router,
            view: Mutex::default(),
            clusters: Mutex::default(),
            listeners: Mutex::default(),
            names: Mutex::default(),
            routes: Mutex::default(),
            asked_clusters: Mutex::default(),
            asked_listeners: Mutex::default(),
            endpoints: Mutex::default(),
        }
    }

    fn slot(&self, type_url: &TypeUrl) -> Option<(&Mutex<Slot>, Part)> {
        Some(match type_url {
            TypeUrl::Cluster => (&self.clusters, Part::Clusters),
            TypeUrl::Listener => (&self.listeners, Part::Listeners),
            TypeUrl::NameTable => (&self.names, Part::Names),
            _ => return None,
        })
    }

    /// When what a part of this class consists of may have changed last.
    fn stamp(&self, stamps: &Stamps, part: Part) -> u64 {
        let part = if self.is_router && part != Part::Endpoints { Part::Gateways } else { part };
        stamps.of(part, &self.namespace)
    }

    fn use_at(&self, serial: u64) {
        self.used.fetch_max(serial, Ordering::Relaxed);
    }

    /// What the proxies of the class see.
    fn view(&self, now: Now<'_>, proxy: &Proxy) -> Arc<View> {
        let serial = now.stamps.serial();
        let mut slot = lock(&self.view);
        if let Some((at, view)) = &*slot
            && *at == serial
        {
            return view.clone();
        }
        let view = Arc::new(View::new(now.snapshot, proxy));
        *slot = Some((serial, view.clone()));
        view
    }

    /// The list of a type that has one for all names.
    fn list(&self, now: Now<'_>, proxy: &Proxy, type_url: &TypeUrl) -> Option<List> {
        let (slot, part) = self.slot(type_url)?;
        let serial = now.stamps.serial();
        let mut slot = lock(slot);
        if let Some(list) = &slot.list
            && slot.serial >= self.stamp(now.stamps, part)
        {
            return Some(list.clone());
        }
        let view = self.view(now, proxy);
        let made = generate::of_view(now.snapshot, proxy, &view, type_url, &Wanted::All, &[Side::Shared]);
        now.cache.count();
        let list = same_or_new(slot.list.take(), now.cache.intern(made.resources));
        *slot = Slot { serial, list: Some(list.clone()), findings: made.findings };
        Some(list)
    }

    /// Whether a list can be had without work.
    fn is_ready(&self, now: Now<'_>, type_url: &TypeUrl) -> bool {
        match self.slot(type_url) {
            Some((slot, part)) => {
                // Locked while somebody works at it.
                slot.try_lock()
                    .is_ok_and(|slot| slot.list.is_some() && slot.serial >= self.stamp(now.stamps, part))
            }
            None => false,
        }
    }
}

/// The old list when the new one says the same.
fn same_or_new(old: Option<List>, new: Vec<Resource>) -> List {
    match old {
        Some(old) if is_same(&old, &new) => old,
        _ => new.into(),
    }
}

fn is_same(old: &[Resource], new: &[Resource]) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            old.version == new.version && old.name == new.name && old.awaits_endpoints == new.awaits_endpoints
        })
}

#[cfg(test)]
mod tests;
