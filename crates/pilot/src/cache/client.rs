//! What one connected proxy gets, and what of it is new to it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use names::TypeUrl;
use xds::Resource;
use xds::session::{Asked, Wanted};

use super::named::host_of;
use super::{List, Now, Shared, same_or_new};
use crate::class::{Class, Detail};
use crate::depend::Part;
use crate::finding::Finding;
use crate::generate::{self, NoTls, SERVER, Side, generate};
use crate::proxy::Proxy;
use crate::scope::Scope;
use crate::snapshot::Snapshot;

/// One connected proxy.
#[derive(Debug)]
pub struct Client {
    proxy: Arc<Proxy>,
    /// Serial for which the classes were found.
    serial: u64,
    client: Option<Arc<Shared>>,
    workload: Option<Arc<Shared>>,
    own: BTreeMap<TypeUrl, Own>,
    seen: BTreeMap<TypeUrl, Seen>,
    /// Which endpoint assignments of its class it knows.
    generation: u64,
    /// Names of endpoint assignments that its class does not know.
    strangers: BTreeSet<Arc<str>>,
}

/// What is the proxy's own of a type.
#[derive(Debug)]
struct Own {
    serial: u64,
    /// What the proxy's pod was like.
    pod: u64,
    list: List,
    findings: Vec<Finding>,
}

/// What the proxy was given last of a type.
#[derive(Debug)]
enum Seen {
    /// All of it: these lists.
    Lists(Option<List>, List),
    /// What it wanted by name, as of that serial.
    Serial(u64),
}

/// What is new to a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing.
    Same,
    /// These are all that it wants; some may be new.
    All(Vec<Resource>),
    /// Of these names something may be new; of others nothing is.
    Some(BTreeSet<Arc<str>>, Vec<Resource>),
}

impl Client {
    /// A proxy that has just come.
    #[must_use]
    pub fn new(proxy: Arc<Proxy>) -> Self {
        Self {
            proxy,
            serial: 0,
            client: None,
            workload: None,
            own: BTreeMap::new(),
            seen: BTreeMap::new(),
            generation: 0,
            strangers: BTreeSet::new(),
        }
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The resources of a type that the proxy should have, of those that are
    /// wanted: what [`crate::generate()`] says.
    pub fn resources(&mut self, now: Now<'_>, type_url: &TypeUrl, wanted: Asked<'_>) -> Vec<Resource> {
        self.look(now);
        let Some((client, workload)) = self.classes() else {
            return generate(now.snapshot, &self.proxy, type_url, &wanted.to_wanted());
        };
        match (type_url, wanted) {
            (TypeUrl::Cluster | TypeUrl::Listener, Asked::Names(names)) if self.proxy.is_proxyless => {
                // Listeners of a server are its own.
                let (own, names): (BTreeSet<_>, BTreeSet<_>) =
                    names.iter().cloned().partition(|name| name.starts_with(SERVER));
                let mut resources = client.by_name(now, &self.proxy, type_url, &names);
                if !own.is_empty() {
                    resources.extend(generate(now.snapshot, &self.proxy, type_url, &Wanted::Names(own)));
                }
                resources
            }
            (TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::NameTable, _) => {
                let shared = if *type_url == TypeUrl::Listener { &workload } else { &client };
                let shared = shared.list(now, &self.proxy, type_url);
                let own = self.own(now, type_url, &workload);
                let both = shared.iter().flat_map(|list| list.iter()).chain(own.iter());
                let is_wanted = |resource: &&Resource| match wanted {
                    Asked::All => true,
                    Asked::Names(names) => names.contains(&resource.name),
                };
                let resources = both.filter(is_wanted).cloned().collect();
                if wanted == Asked::All {
                    self.seen.insert(type_url.clone(), Seen::Lists(shared, own));
                } else {
                    self.seen.remove(type_url);
                }
                resources
            }
            (TypeUrl::Route, Asked::Names(names)) => client.by_name(now, &self.proxy, type_url, names),
            (TypeUrl::Endpoint, Asked::Names(names)) => self.endpoints(now, &client, names),
            _ => generate(now.snapshot, &self.proxy, type_url, &wanted.to_wanted()),
        }
    }

    /// What may be new since the last time that all of the type was asked for.
    /// `due` are names of endpoint assignments that are wanted in any case.
    pub fn fresh(
        &mut self,
        now: Now<'_>,
        type_url: &TypeUrl,
        wanted: Asked<'_>,
        due: &BTreeSet<Arc<str>>,
    ) -> Fresh {
        self.look(now);
        let Some((client, workload)) = self.classes() else {
            return Fresh::All(self.resources(now, type_url, wanted));
        };
        match (type_url, wanted) {
            (TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::NameTable, Asked::All) => {
                let shared = if *type_url == TypeUrl::Listener { &workload } else { &client };
                let shared = shared.list(now, &self.proxy, type_url);
                let own = self.own(now, type_url, &workload);
                if let Some(Seen::Lists(seen, seen_own)) = self.seen.get(type_url)
                    && same(seen.as_ref(), shared.as_ref())
                    && Arc::ptr_eq(seen_own, &own)
                {
                    return Fresh::Same;
                }
                Fresh::All(self.resources(now, type_url, wanted))
            }
            (TypeUrl::Route, Asked::Names(_)) => {
                if let Some(Seen::Serial(seen)) = self.seen.get(type_url)
                    && *seen >= client.stamp(now.stamps, Part::Routes)
                {
                    return Fresh::Same;
                }
                self.seen.insert(type_url.clone(), Seen::Serial(now.stamps.serial()));
                Fresh::All(self.resources(now, type_url, wanted))
            }
            (TypeUrl::Endpoint, Asked::Names(names)) => self.fresh_endpoints(now, &client, names, due),
            _ => Fresh::All(self.resources(now, type_url, wanted)),
        }
    }

    fn fresh_endpoints(
        &mut self,
        now: Now<'_>,
        client: &Shared,
        names: &BTreeSet<Arc<str>>,
        due: &BTreeSet<Arc<str>>,
    ) -> Fresh {
        let seen = match self.seen.insert(TypeUrl::Endpoint, Seen::Serial(now.stamps.serial())) {
            Some(Seen::Serial(seen)) => seen,
            _ => 0,
        };
        let generation = client.generation.load(Ordering::Relaxed);
        let is_known = std::mem::replace(&mut self.generation, generation) == generation;
        let hosts = (is_known && seen > 0 && seen >= client.stamp(now.stamps, Part::Endpoints))
            .then(|| now.stamps.hosts_since(seen))
            .flatten();
        let Some(hosts) = hosts else {
            self.strangers.retain(|name| names.contains(name));
            return Fresh::All(self.endpoints(now, client, names));
        };
        if self.strangers.len() > names.len() {
            self.strangers.retain(|name| names.contains(name));
        }
        let mut some: BTreeSet<Arc<str>> = due.intersection(names).cloned().collect();
        for host in hosts {
            let known = client.assignments_of(host.as_str());
            let strangers = self.strangers.iter().filter(|name| host_of(name) == host.as_str()).cloned();
            some.extend(known.into_iter().chain(strangers).filter(|name| names.contains(name)));
        }
        // Which service the proxy's own is may change with anything.
        some.extend(names.get(generate::OWN_CLUSTER).cloned());
        if some.is_empty() {
            return Fresh::Same;
        }
        let resources = self.endpoints(now, client, &some);
        Fresh::Some(some, resources)
    }

    /// Endpoint assignments of those names: that of the proxy's own kind is not one
    /// of its class.
    fn endpoints(&mut self, now: Now<'_>, client: &Shared, names: &BTreeSet<Arc<str>>) -> Vec<Resource> {
        let Some(own) = names.get(generate::OWN_CLUSTER) else {
            return client.endpoints(now, &self.proxy, names, &mut self.strangers);
        };
        let (own, mut others) = (own.clone(), names.clone());
        others.remove(&own);
        let view = client.view(now, &self.proxy);
        let wanted = Wanted::Names(BTreeSet::from([own]));
        let sides = [Side::Shared];
        let made = generate::of_view(now.snapshot, &self.proxy, &view, &TypeUrl::Endpoint, &wanted, &sides);
        let mut resources = now.cache.intern(made.resources);
        resources.extend(client.endpoints(now, &self.proxy, &others, &mut self.strangers));
        resources
    }

    /// Whether [`Client::fresh`] says something at once.
    pub fn is_fresh_ready(&mut self, now: Now<'_>, type_url: &TypeUrl, wanted: Asked<'_>) -> bool {
        self.look(now);
        if let (TypeUrl::Endpoint, Some(client), Some(Seen::Serial(seen))) =
            (type_url, &self.client, self.seen.get(type_url))
        {
            let hosts = now.stamps.hosts_since(*seen).map(Iterator::count);
            if *seen >= client.stamp(now.stamps, Part::Endpoints) && hosts.is_some_and(|hosts| hosts < FEW) {
                return true;
            }
        }
        self.is_ready(now, type_url, wanted)
    }

    /// Whether [`Client::resources`] can be had at once; else they should be
    /// asked for where work may take its time.
    pub fn is_ready(&mut self, now: Now<'_>, type_url: &TypeUrl, wanted: Asked<'_>) -> bool {
        self.look(now);
        let Some((client, workload)) = self.classes() else { return false };
        match (type_url, wanted) {
            (TypeUrl::Cluster, _) => {
                client.is_ready(now, type_url) && self.is_own_ready(now, type_url, &client)
            }
            (TypeUrl::NameTable, _) => client.is_ready(now, type_url),
            (TypeUrl::Listener, _) => {
                workload.is_ready(now, type_url) && self.is_own_ready(now, type_url, &workload)
            }
            (TypeUrl::Route, Asked::Names(names)) => client.are_routes_ready(now, names),
            (TypeUrl::Endpoint, Asked::Names(names)) => client.are_endpoints_ready(now, names),
            _ => false,
        }
    }

    /// TLS of clusters that rules demand and that the proxy, an application that
    /// speaks xDS itself, does not begin by them. None of Envoy.
    pub fn without_tls(&mut self, now: Now<'_>, clusters: &BTreeSet<Arc<str>>) -> Vec<NoTls> {
        if !self.proxy.is_proxyless {
            return Vec::new();
        }
        self.look(now);
        let Some((client, _)) = self.classes() else { return Vec::new() };
        let view = client.view(now, &self.proxy);
        generate::without_tls(Scope::new(now.snapshot, &self.proxy, &view), clusters)
    }

    /// What was found while the proxy's own resources were made.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.own.values().flat_map(|own| &own.findings)
    }

    /// Forgets what the proxy was given: the next time everything is new.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn classes(&self) -> Option<(Arc<Shared>, Arc<Shared>)> {
        Some((self.client.clone()?, self.workload.clone()?))
    }

    /// Finds the classes of the proxy, which may change with the snapshot.
    fn look(&mut self, now: Now<'_>) {
        let serial = now.stamps.serial();
        if self.serial == serial && self.client.is_some() {
            return;
        }
        let find = |detail| now.cache.shared(Class::of(now.snapshot, &self.proxy, detail), &self.proxy);
        let (client, workload) = (find(Detail::Client), find(Detail::Workload));
        client.use_at(serial);
        workload.use_at(serial);
        if self.client.as_ref().is_some_and(|known| !Arc::ptr_eq(known, &client)) {
            // Nothing that was seen tells of what the other class has.
            self.seen.clear();
        }
        (self.serial, self.client, self.workload) = (serial, Some(client), Some(workload));
    }

    /// Whether what is the proxy's own is as it was.
    fn is_own_ready(&self, now: Now<'_>, type_url: &TypeUrl, shared: &Shared) -> bool {
        if shared.is_router {
            return true;
        }
        let part = if *type_url == TypeUrl::Listener { Part::OwnListeners } else { Part::OwnClusters };
        let namespace = &self.proxy.namespace;
        self.own.get(type_url).is_some_and(|own| {
            own.serial >= now.stamps.of(part, namespace)
                && self.proxy.ips.iter().all(|ip| own.serial >= now.stamps.address(*ip))
                && (own.serial >= now.stamps.of(Part::Pods, namespace)
                    || own.pod == print(now.snapshot, &self.proxy))
        })
    }

    /// What only this proxy has of a type.
    fn own(&mut self, now: Now<'_>, type_url: &TypeUrl, shared: &Shared) -> List {
        if *type_url == TypeUrl::NameTable || shared.is_router {
            let none = || Own { serial: 0, pod: 0, list: Vec::new().into(), findings: Vec::new() };
            return self.own.entry(type_url.clone()).or_insert_with(none).list.clone();
        }
        let is_ready = self.is_own_ready(now, type_url, shared);
        if let Some(own) = self.own.get_mut(type_url).filter(|_| is_ready) {
            own.serial = now.stamps.serial();
            return own.list.clone();
        }
        let view = shared.view(now, &self.proxy);
        let made = generate::of_view(now.snapshot, &self.proxy, &view, type_url, &Wanted::All, &[Side::Own]);
        now.cache.count();
        let old = self.own.remove(type_url).map(|own| own.list);
        let list = same_or_new(old, now.cache.intern(made.resources));
        let pod = print(now.snapshot, &self.proxy);
        let own = Own { serial: now.stamps.serial(), pod, list: list.clone(), findings: made.findings };
        self.own.insert(type_url.clone(), own);
        list
    }
}

/// Tells whether the pod of a proxy is another one than before, in anything
/// that what is its own depends on.
fn print(snapshot: &Snapshot, proxy: &Proxy) -> u64 {
    let mut hasher = DefaultHasher::new();
    for pod in proxy.ips.iter().filter_map(|ip| snapshot.pod(*ip)) {
        let meta = &pod.meta;
        (&meta.name, &meta.namespace, &meta.labels, &meta.annotations).hash(&mut hasher);
        format!("{:?}", pod.pod.spec).hash(&mut hasher);
    }
    hasher.finish()
}

/// Hosts whose assignments are made on the way.
const FEW: usize = 32;

fn same(one: Option<&List>, other: Option<&List>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
