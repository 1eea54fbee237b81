//! Resources that proxies ask for by name: routes and endpoint assignments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use names::TypeUrl;
use xds::Resource;
use xds::session::Wanted;

use super::{Now, Shared, lock};
use crate::depend::Part;
use crate::finding::Finding;
use crate::generate::{self, Side};
use crate::proxy::Proxy;

/// Results by name.
#[derive(Debug, Default)]
pub(super) struct Named {
    entries: HashMap<Arc<str>, Entry>,
    /// Names of endpoint assignments by host.
    by_host: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// What was found while they were made, by name; few names have any.
    pub(super) findings: BTreeMap<Arc<str>, Vec<Finding>>,
}

#[derive(Debug)]
struct Entry {
    /// Serial of the snapshot it was made from.
    serial: u64,
    /// `None`: nothing of that name is there.
    resource: Option<Resource>,
}

/// Names of one host that are remembered; there are as many as ports times subsets.
const MOST_OF_HOST: usize = 1024;
/// Route configurations that are remembered; a mesh has one for each port, and one
/// for each port of a service whose protocol is not known. As many clusters and
/// listeners of applications that speak xDS themselves.
const MOST_NAMES: usize = 16_384;

impl Named {
    /// Serial of the snapshot that what has that name was made from.
    pub(super) fn serial_of(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.serial)
    }

    /// What is there.
    pub(super) fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.entries.values().filter_map(|entry| entry.resource.as_ref())
    }
}

/// The host in the name of a cluster: what follows the last separator.
pub(super) fn host_of(cluster: &str) -> &str {
    let host = cluster.rsplit('|').next().unwrap_or(cluster);
    host.rsplit("_.").next().unwrap_or(host)
}

impl Shared {
    /// What is asked for by name and depends on one part: routes, and of
    /// applications that speak xDS themselves clusters and listeners, too.
    fn named(&self, type_url: &TypeUrl) -> Option<(&Mutex<Named>, Part)> {
        Some(match type_url {
            TypeUrl::Route => (&self.routes, Part::Routes),
            TypeUrl::Cluster => (&self.asked_clusters, Part::Clusters),
            TypeUrl::Listener => (&self.asked_listeners, Part::Listeners),
            _ => return None,
        })
    }

    /// Resources of those names, as far as they exist.
    pub(super) fn by_name(
        &self,
        now: Now<'_>,
        proxy: &Proxy,
        type_url: &TypeUrl,
        names: &BTreeSet<Arc<str>>,
    ) -> Vec<Resource> {
        let Some((known, part)) = self.named(type_url) else { return Vec::new() };
        let stamp = self.stamp(now.stamps, part);
        let mut known = lock(known);
        let is_good = |entry: &Entry| entry.serial >= stamp;
        let missing: BTreeSet<Arc<str>> =
            names.iter().filter(|name| !known.entries.get(*name).is_some_and(is_good)).cloned().collect();
        let mut others: HashMap<Arc<str>, Resource> = HashMap::new();
        if !missing.is_empty() {
            let view = self.view(now, proxy);
            let wanted = Wanted::Names(missing.clone());
            let made = generate::of_view(now.snapshot, proxy, &view, type_url, &wanted, &[Side::Shared]);
            now.cache.count();
            known.find(&missing, made.findings);
            let made = now.cache.intern(made.resources).into_iter();
            others.extend(made.map(|resource| (resource.name.clone(), resource)));
            let serial = now.stamps.serial();
            if known.entries.len() + missing.len() > MOST_NAMES {
                known.entries.retain(|_, entry| entry.serial >= stamp);
            }
            for name in missing {
                // Anybody may ask for any name.
                if known.entries.len() < MOST_NAMES {
                    let resource = others.remove(&name);
                    known.entries.insert(name, Entry { serial, resource });
                }
            }
        }
        let own = |name: &Arc<str>| known.entries.get(name).and_then(|entry| entry.resource.clone());
        names.iter().filter_map(|name| others.get(name).cloned().or_else(|| own(name))).collect()
    }

    /// Whether all of those can be had without work.
    pub(super) fn are_routes_ready(&self, now: Now<'_>, names: &BTreeSet<Arc<str>>) -> bool {
        let stamp = self.stamp(now.stamps, Part::Routes);
        self.routes.try_lock().is_ok_and(|routes| {
            names.iter().all(|name| routes.entries.get(name).is_some_and(|entry| entry.serial >= stamp))
        })
    }

    /// Endpoint assignments of those names. Names whose changes will not be told
    /// by [`Shared::assignments_of`] are added to `strangers`.
    pub(super) fn endpoints(
        &self,
        now: Now<'_>,
        proxy: &Proxy,
        names: &BTreeSet<Arc<str>>,
        strangers: &mut BTreeSet<Arc<str>>,
    ) -> Vec<Resource> {
        let all = self.stamp(now.stamps, Part::Endpoints);
        let serial = now.stamps.serial();
        let mut guard = lock(&self.endpoints);
        let endpoints = &mut *guard;
        let mut resources = Vec::with_capacity(names.len());
        let mut missing = BTreeSet::new();
        for name in names {
            let good = endpoints
                .entries
                .get(name)
                .filter(|entry| entry.serial >= all && entry.serial >= now.stamps.host(host_of(name)));
            match good.and_then(|entry| entry.resource.clone()) {
                Some(resource) => resources.push(resource),
                None => {
                    missing.insert(name.clone());
                }
            }
        }
        if missing.is_empty() {
            return resources;
        }
        let view = self.view(now, proxy);
        let made = generate::of_view(
            now.snapshot,
            proxy,
            &view,
            &TypeUrl::Endpoint,
            &Wanted::Names(missing.clone()),
            &[Side::Shared],
        );
        now.cache.count();
        endpoints.find(&missing, made.findings);
        for resource in now.cache.intern(made.resources) {
            let host = host_of(&resource.name);
            // What does not exist for these proxies may begin to by any change of theirs.
            let exists = generate::has_endpoints(now.snapshot, proxy, &view, &resource.name);
            let known = endpoints.by_host.get(host);
            let is_known = known.is_some_and(|known| known.contains(&resource.name));
            if is_known || exists && known.is_none_or(|known| known.len() < MOST_OF_HOST) {
                if !is_known {
                    endpoints.by_host.entry(host.into()).or_default().push(resource.name.clone());
                }
                let entry = Entry { serial, resource: Some(resource.clone()) };
                endpoints.entries.insert(resource.name.clone(), entry);
            } else {
                strangers.insert(resource.name.clone());
            }
            resources.push(resource);
        }
        resources
    }

    /// Whether all of those can be had without work.
    pub(super) fn are_endpoints_ready(&self, now: Now<'_>, names: &BTreeSet<Arc<str>>) -> bool {
        let all = self.stamp(now.stamps, Part::Endpoints);
        self.endpoints.try_lock().is_ok_and(|endpoints| {
            names.iter().all(|name| {
                endpoints.entries.get(name).is_some_and(|entry| {
                    entry.serial >= all && entry.serial >= now.stamps.host(host_of(name))
                })
            })
        })
    }

    /// Names of assignments of a host that somebody has asked for.
    pub(super) fn assignments_of(&self, host: &str) -> Vec<Arc<str>> {
        lock(&self.endpoints).by_host.get(host).cloned().unwrap_or_default()
    }

    /// Forgets all endpoint assignments; proxies look at all of theirs again.
    pub(super) fn forget_endpoints(&self) {
        *lock(&self.endpoints) = Named::default();
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// How many hosts have assignments that are remembered.
    pub(super) fn hosts(&self) -> usize {
        lock(&self.endpoints).by_host.len()
    }
}
