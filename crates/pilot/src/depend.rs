//! What a change of the configuration concerns: which parts of what proxies
//! get, and of which proxies.
//!
//! [`Stamps`] says of each part when it may have changed last. A cached result
//! that is not older is still right; nothing has to be told to caches.

mod audience;
mod services;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use config::{Key, Kind, Object};
use names::Hostname;

use self::audience::Audience;
use crate::settings::KeyFetch;
use crate::snapshot::Snapshot;

/// A part of what proxies get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Clusters of sidecars that lead out.
    Clusters,
    /// Listeners of sidecars for what leaves the workload.
    Listeners,
    /// Route configurations of sidecars.
    Routes,
    /// Name tables.
    Names,
    /// Extension configurations.
    Extensions,
    /// Endpoint assignments, of every cluster.
    Endpoints,
    /// Clusters of sidecars that lead to the workload.
    OwnClusters,
    /// Listeners of sidecars for what comes to the workload.
    OwnListeners,
    /// Pods, whose labels and ports decide on what is the proxy's own.
    Pods,
    /// All of gateways but endpoints.
    Gateways,
}

const PARTS: usize = 10;
/// What leaves a sidecar, but for endpoints.
const OUTBOUND: &[Part] =
    &[Part::Clusters, Part::Listeners, Part::Routes, Part::Names, Part::Extensions, Part::Gateways];
/// What depends on whether servers speak mutual TLS.
const SPOKEN: &[Part] = &[Part::Clusters, Part::Listeners, Part::Routes, Part::Gateways];
const OWN: &[Part] = &[Part::OwnClusters, Part::OwnListeners];
const ALL: &[Part] = &[
    Part::Clusters,
    Part::Listeners,
    Part::Routes,
    Part::Names,
    Part::Extensions,
    Part::Endpoints,
    Part::OwnClusters,
    Part::OwnListeners,
    Part::Pods,
    Part::Gateways,
];

/// Changed hosts that are remembered one by one.
const RECENT: usize = 1024;

/// Namespaces that are remembered one by one beyond those that have services.
const FEW_NAMESPACES: usize = 256;

/// Addresses of changed endpoints that are remembered one by one.
const MAX_ADDRESSES: usize = 10_000;

/// An object before and after a change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub key: Key,
    /// As it was; `None` when it is new.
    pub old: Option<Arc<Object>>,
    /// As it is; `None` when it is gone.
    pub new: Option<Arc<Object>>,
}

/// When each part may have changed last, as serials of snapshots.
#[derive(Clone, Debug, Default)]
pub struct Stamps {
    serial: u64,
    everyone: [u64; PARTS],
    namespaces: Arc<BTreeMap<String, [u64; PARTS]>>,
    hosts: Arc<BTreeMap<Hostname, u64>>,
    /// When an endpoint of that address has changed last.
    addresses: Arc<BTreeMap<IpAddr, u64>>,
    /// Changed hosts in the order of their changes.
    recent: Arc<VecDeque<(u64, Hostname)>>,
    /// Up to that serial changes of hosts are forgotten.
    forgotten: u64,
    /// When anything but endpoints has changed last.
    marked: u64,
}

impl Stamps {
    /// For a first snapshot: everything is of that time.
    #[must_use]
    pub fn new(serial: u64) -> Self {
        Self { serial, everyone: [serial; PARTS], forgotten: serial, marked: serial, ..Self::default() }
    }

    /// Serial of the snapshot.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// When a part of the proxies of a namespace may have changed last.
    #[must_use]
    pub fn of(&self, part: Part, namespace: &str) -> u64 {
        let part = part as usize;
        self.namespaces.get(namespace).map_or(0, |stamps| stamps[part]).max(self.everyone[part])
    }

    /// When anything but endpoints may have changed last, of any proxy.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// When the endpoints of a host may have changed last, apart from [`Part::Endpoints`].
    #[must_use]
    pub fn host(&self, host: &str) -> u64 {
        self.hosts.get(host).copied().unwrap_or_default()
    }

    /// When services last began or ceased to list an address, which makes them
    /// lead to the workload there.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> u64 {
        self.addresses.get(&address).copied().unwrap_or_default()
    }

    /// Hosts whose endpoints may have changed after `serial`; `None` when that
    /// is too long ago to tell.
    pub fn hosts_since(&self, serial: u64) -> Option<impl Iterator<Item = &Hostname>> {
        let newest_first = self.recent.iter().rev();
        (serial >= self.forgotten)
            .then(|| newest_first.take_while(move |(at, _)| *at > serial).map(|(_, host)| host))
    }

    /// The stamps after settings have changed that everything depends on.
    #[must_use]
    pub fn all_changed(&self, serial: u64) -> Self {
        Self { serial, everyone: [serial; PARTS], marked: serial, ..self.clone() }
    }

    /// The stamps of the snapshot that follows on `old`, by what has changed.
    #[must_use]
    pub fn advance(&self, serial: u64, old: &Snapshot, new: &Snapshot, changes: &[Change]) -> Self {
        let mut stamps = Self { serial, ..self.clone() };
        for change in changes {
            stamps.object(change, &new.mesh);
        }
        if changes.iter().any(|change| services::concern(change.key.kind)) {
            for changed in services::changed(&old.services, &new.services) {
                stamps.service(&changed);
                // Whoever is told of requests has a name in the listeners of all.
                if matches!(changed.how, services::How::Shape) && is_provider(new, changed.host) {
                    let parts = [Part::Listeners, Part::OwnListeners, Part::Gateways];
                    stamps.mark(&parts, &Audience::Everyone);
                }
                if matches!(changed.how, services::How::Shape) {
                    stamps.keys_of(new, changed.host);
                }
            }
            stamps.forget_hosts(new.services.len());
            if old.networks != new.networks {
                stamps.mark(&[Part::Endpoints, Part::Clusters, Part::Gateways], &Audience::Everyone);
            }
        }
        stamps.forget_namespaces(new.directory.namespaces());
        stamps
    }

    fn object(&mut self, change: &Change, mesh: &mesh::MeshConfig) {
        let audience = Audience::of(change, mesh);
        let kind = change.key.kind;
        match kind {
            Kind::Pod => self.mark(&[Part::Pods], &audience),
            // Pods are where their node is.
            Kind::Node => self.mark(&[Part::Pods], &Audience::Everyone),
            Kind::VirtualService => {
                self.mark(&[Part::Clusters, Part::Listeners, Part::Routes, Part::Gateways], &audience);
            }
            Kind::DestinationRule => {
                let parts = [Part::Clusters, Part::Listeners, Part::Routes, Part::Endpoints, Part::Gateways];
                self.mark(&parts, &audience);
                self.mark(OWN, &audience);
            }
            Kind::PeerAuthentication => {
                self.mark(OWN, &audience);
                // Clients speak as the servers' namespace demands, and say inside TLS what it is.
                self.mark(SPOKEN, &Audience::Everyone);
            }
            Kind::AuthorizationPolicy | Kind::RequestAuthentication => {
                self.mark(&[Part::OwnListeners, Part::Gateways], &audience);
            }
            Kind::Telemetry => {
                self.mark(&[Part::Listeners, Part::OwnListeners, Part::Gateways], &audience);
            }
            Kind::WasmPlugin | Kind::TrafficExtension => {
                let parts = [Part::Listeners, Part::OwnListeners, Part::Extensions, Part::Gateways];
                self.mark(&parts, &audience);
            }
            Kind::EnvoyFilter => {
                self.mark(OUTBOUND, &audience);
                self.mark(OWN, &audience);
            }
            // A Gateway may select proxies of any namespace.
            Kind::Gateway => self.mark(&[Part::Gateways], &Audience::Everyone),
            // Secrets are made for each proxy; extensions may hold credentials.
            Kind::Secret => self.mark(&[Part::Extensions], &Audience::Everyone),
            Kind::Sidecar | Kind::Namespace => self.mark(ALL, &audience),
            // Services are compared one by one.
            _ if services::concern(kind) => {}
            Kind::ProxyConfig | Kind::WorkloadGroup | Kind::ServiceAccount | Kind::ConfigMap => {}
            _ => self.mark(ALL, &Audience::Everyone),
        }
    }

    fn service(&mut self, changed: &services::Changed<'_>) {
        self.host_changed(changed.host);
        self.addresses_changed(&changed.addresses);
        let audience = Audience::of_services(changed.services());
        match changed.how {
            services::How::Endpoints => {}
            services::How::Identities => self.mark(SPOKEN, &audience),
            services::How::Addresses => {
                self.mark(SPOKEN, &audience);
                self.mark(&[Part::Names], &audience);
            }
            services::How::Shape => {
                self.mark(OUTBOUND, &audience);
                let own = changed.services().map(|service| service.namespace.clone()).collect();
                self.mark(OWN, &Audience::Namespaces(own));
            }
        }
    }

    /// Where Envoy fetches keys from servers of the mesh alone, it depends on
    /// whether the server is one.
    fn keys_of(&mut self, snapshot: &Snapshot, host: &Hostname) {
        if snapshot.settings.features.key_fetch == KeyFetch::Hybrid {
            for namespace in snapshot.jwt.users_of(host) {
                let audience = Audience::of_namespace(namespace, &snapshot.mesh);
                self.mark(&[Part::OwnListeners, Part::Gateways], &audience);
            }
        }
    }

    fn mark(&mut self, parts: &[Part], audience: &Audience) {
        self.marked = self.serial;
        match audience {
            Audience::Everyone => {
                parts.iter().for_each(|part| self.everyone[*part as usize] = self.serial);
            }
            Audience::Namespaces(namespaces) => {
                for namespace in namespaces {
                    let all = Arc::make_mut(&mut self.namespaces);
                    let stamps = all.entry(namespace.clone()).or_default();
                    parts.iter().for_each(|part| stamps[*part as usize] = self.serial);
                }
            }
        }
    }
}

/// Whether a host is that of one of the mesh's extension providers.
fn is_provider(snapshot: &Snapshot, host: &Hostname) -> bool {
    let providers = snapshot.mesh.extension_providers.iter().filter_map(|one| one.provider.as_ref());
    let mut services = providers.filter_map(mesh::extension_provider::service);
    services.any(|(service, _)| service.rsplit('/').next() == Some(host.as_str()))
}

impl Stamps {
    /// Bounds the memory of stamps by what is in force and not by what was once.
    fn forget_hosts(&mut self, services: usize) {
        if self.hosts.len() > 2 * services + RECENT {
            self.hosts = Arc::default();
            self.everyone[Part::Endpoints as usize] = self.serial;
        }
    }

    /// Bounds it by the namespaces that there are: what was marked for one of
    /// those that are forgotten holds for everybody.
    fn forget_namespaces(&mut self, namespaces: usize) {
        if self.namespaces.len() <= 2 * namespaces + FEW_NAMESPACES {
            return;
        }
        for stamps in std::mem::take(&mut self.namespaces).values() {
            for (all, stamp) in self.everyone.iter_mut().zip(stamps) {
                *all = (*all).max(*stamp);
            }
        }
    }

    /// Bounded as well: when there are too many, everybody looks at its own anew.
    fn addresses_changed(&mut self, addresses: &BTreeSet<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let all = Arc::make_mut(&mut self.addresses);
        all.extend(addresses.iter().map(|address| (*address, self.serial)));
        if all.len() > MAX_ADDRESSES {
            all.clear();
            OWN.iter().for_each(|part| self.everyone[*part as usize] = self.serial);
        }
    }

    fn host_changed(&mut self, host: &Hostname) {
        Arc::make_mut(&mut self.hosts).insert(host.clone(), self.serial);
        let recent = Arc::make_mut(&mut self.recent);
        recent.push_back((self.serial, host.clone()));
        while recent.len() > RECENT {
            if let Some((serial, _)) = recent.pop_front() {
                self.forgotten = self.forgotten.max(serial);
            }
        }
    }
}

#[cfg(test)]
mod tests;
