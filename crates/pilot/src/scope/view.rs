//! What a proxy may call: the same for all proxies that one Sidecar holds for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use names::{ClusterName, Hostname, cluster_name};
use proto::istio::networking::v1alpha3::outbound_traffic_policy::Mode;
use proto::istio::networking::v1alpha3::{Destination, VirtualService};

use super::imports;
use crate::proxy::{Proxy, ProxyKind};
use crate::snapshot::sidecar;
use crate::snapshot::virtual_service::Entry;
use crate::snapshot::{Port, Registry, Service, Snapshot};

/// A way out of a proxy: an egress listener of its Sidecar, or the only one of
/// a proxy without.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    /// Its own port, number 0 for a Unix socket; `None` for the way that holds for every port.
    pub(crate) port: Option<Port>,
    /// Address or Unix socket that it listens on; empty for that of each service.
    pub(crate) bind: String,
    /// Whether it takes connections itself in place of those that are redirected.
    pub(crate) binds_to_port: bool,
    /// Services that may be called this way, in the order in which they win
    /// conflicts; of a way with a port each has that port only.
    pub(crate) services: Vec<Arc<Service>>,
    /// VirtualServices that hold there, in the order in which they win conflicts.
    pub(crate) virtual_services: Vec<Arc<Entry>>,
    /// Positions of VirtualServices by their hosts as written.
    by_host: HashMap<Hostname, Vec<usize>>,
    /// Positions of those with a wildcard, the longest first.
    wildcards: Vec<(Hostname, usize)>,
}

impl Egress {
    /// One for every port.
    pub(super) fn new(services: Vec<Arc<Service>>, virtual_services: Vec<Arc<Entry>>) -> Self {
        let mut by_host: HashMap<Hostname, Vec<usize>> = HashMap::new();
        let mut wildcards = Vec::new();
        for (index, entry) in virtual_services.iter().enumerate() {
            for host in &entry.hosts {
                by_host.entry(host.clone()).or_default().push(index);
                if host.is_wildcard() {
                    wildcards.push((host.clone(), index));
                }
            }
        }
        wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
        let binds_to_port = false;
        Self {
            port: None,
            bind: String::new(),
            binds_to_port,
            services,
            virtual_services,
            by_host,
            wildcards,
        }
    }

    /// Number of its own port; `None` for the way that holds for every port.
    pub(crate) fn number(&self) -> Option<u16> {
        self.port.as_ref().map(|port| port.number)
    }

    /// The VirtualService that decides on a host: an exact name before a
    /// wildcard, a long wildcard before a short one, and then the first.
    pub(crate) fn virtual_service(&self, host: &Hostname) -> Option<&Arc<Entry>> {
        let exact = self.by_host.get(host).and_then(|all| all.first()).copied();
        let index = exact
            .or_else(|| self.wildcards.iter().find(|(own, _)| own.covers(host)).map(|(_, index)| *index))?;
        self.virtual_services.get(index)
    }

    /// All VirtualServices with a host that may mean the same as that one.
    pub(crate) fn matching(&self, host: &Hostname) -> impl Iterator<Item = &Arc<Entry>> {
        let mut all: BTreeSet<usize> = self.by_host.get(host).into_iter().flatten().copied().collect();
        all.extend(self.wildcards.iter().filter(|(own, _)| own.matches(host)).map(|(_, index)| *index));
        if host.is_wildcard() {
            let means = |entry: &Entry| entry.hosts.iter().any(|own| own.matches(host));
            let entries = self.virtual_services.iter().enumerate();
            all.extend(entries.filter(|(_, entry)| means(entry)).map(|(index, _)| index));
        }
        all.into_iter().filter_map(|index| self.virtual_services.get(index))
    }
}

/// What a proxy may call, and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Ways out, in the Sidecar's order.
    pub(crate) egress: Vec<Egress>,
    /// The Sidecar it comes from.
    pub(super) sidecar: Option<Arc<sidecar::Entry>>,
    /// Services of all ways out, those of one name put together.
    pub(super) services: Vec<Arc<Service>>,
    /// Positions of services.
    by_host: HashMap<Hostname, usize>,
    /// Positions of services by names that stand for them.
    by_alias: HashMap<Hostname, usize>,
    pub(super) allows_any_outbound: bool,
    pub(super) unknown_destination: String,
    /// Whether unknown requests go where DNS says that their host is.
    pub(super) resolves_unknown: bool,
    /// Services whose wildcard stands for names that Envoy asks DNS for.
    pub(crate) by_name: Vec<Arc<Service>>,
}

impl View {
    /// What a proxy sees of a snapshot. Gateways do not follow Sidecars.
    pub(crate) fn new(snapshot: &Snapshot, proxy: &Proxy) -> Self {
        let sidecar = match proxy.kind {
            ProxyKind::Sidecar => snapshot.sidecars.find(&proxy.namespace, super::labels(snapshot, proxy)),
            ProxyKind::Router => None,
        };
        Self::of(snapshot, &proxy.namespace, sidecar)
    }

    fn of(snapshot: &Snapshot, client: &str, sidecar: Option<&Arc<sidecar::Entry>>) -> Self {
        let egress = match sidecar {
            Some(sidecar) if !sidecar.spec.egress.is_empty() => {
                sidecar.egress.iter().map(|egress| imports::listener(snapshot, client, egress)).collect()
            }
            _ => vec![imports::everything(snapshot, client)],
        };
        let mut view = Self {
            egress: Vec::new(),
            sidecar: sidecar.cloned(),
            services: Vec::new(),
            by_host: HashMap::new(),
            by_alias: HashMap::new(),
            allows_any_outbound: snapshot.mesh.allows_any_outbound(),
            unknown_destination: String::new(),
            resolves_unknown: snapshot.mesh.resolves_unknown(),
            by_name: Vec::new(),
        };
        for egress in &egress {
            egress.services.iter().for_each(|service| view.add(service.clone()));
            view.add_destinations(snapshot, client, egress);
        }
        view.egress = egress;
        for (index, service) in view.services.iter().enumerate() {
            for alias in &service.aliases {
                view.by_alias.entry(alias.clone()).or_insert(index);
            }
        }
        let by_name = view.services.iter().filter(|service| service.is_dynamic());
        view.by_name = by_name.cloned().collect();
        view.unknown_destination = cluster_name::PASSTHROUGH.into();
        if let Some((sidecar, policy)) =
            sidecar.and_then(|sidecar| Some((sidecar, sidecar.spec.outbound_traffic_policy.as_ref()?)))
        {
            view.allows_any_outbound = policy.mode() == Mode::AllowAny;
            view.resolves_unknown = false;
            if let Some(proxy) = &policy.egress_proxy {
                let host = Hostname::resolve(&proxy.host, &sidecar.namespace, &snapshot.domain);
                let port = proxy.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
                view.unknown_destination =
                    ClusterName::outbound(port.unwrap_or(0), &proxy.subset, &host).to_string();
            }
        }
        if !view.allows_any_outbound {
            view.unknown_destination = cluster_name::BLACK_HOLE.into();
        }
        view
    }

    /// The service of that name.
    pub(super) fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.services.get(*self.by_host.get(host)?)
    }

    /// The first service that a name stands for.
    pub(super) fn service_by_alias(&self, alias: &Hostname) -> Option<&Arc<Service>> {
        self.services.get(*self.by_alias.get(alias)?)
    }

    /// Adds the services that VirtualServices lead to; one that a listener
    /// names stays as that listener has it.
    fn add_destinations(&mut self, snapshot: &Snapshot, client: &str, egress: &Egress) {
        for entry in &egress.virtual_services {
            for (host, ports) in destinations(&entry.spec, client) {
                let Some(service) = snapshot.directory.find_for(&host, client) else { continue };
                if self.service(&host).is_some_and(|known| Arc::ptr_eq(known, service)) {
                    continue;
                }
                let fits = |number| match egress.number().filter(|own| *own != 0) {
                    Some(own) => own == number,
                    None => ports.contains(&0) || ports.contains(&number),
                };
                if let Some(service) = imports::with_ports(service, fits) {
                    self.add(service);
                }
            }
        }
    }

    /// Adds a service, or its ports to one of the same name that is there.
    fn add(&mut self, service: Arc<Service>) {
        let known = match self.by_host.get(&service.host) {
            Some(index) => self.services.get_mut(*index),
            None => {
                self.by_host.insert(service.host.clone(), self.services.len());
                self.services.push(service);
                return;
            }
        };
        let Some(known) = known.filter(|known| !Arc::ptr_eq(known, &service)) else { return };
        match (known.registry, service.registry) {
            (Registry::Kubernetes, Registry::External) => {}
            (Registry::External, Registry::Kubernetes) => *known = service,
            _ if can_join(known, &service) => {
                let is_new = |port: &&Port| !known.ports.iter().any(|own| own.number == port.number);
                let new: Vec<Port> = service.ports.iter().filter(is_new).cloned().collect();
                if !new.is_empty() {
                    Arc::make_mut(known).ports.extend(new);
                }
            }
            _ => {}
        }
    }
}

fn can_join(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace
        && a.resolution == b.resolution
        && a.selector == b.selector
        && a.visibility == b.visibility
}

/// Hosts that a VirtualService leads clients of a namespace to, with their
/// ports; 0 stands for a destination that leaves the port open.
fn destinations(spec: &VirtualService, client: &str) -> BTreeMap<Hostname, BTreeSet<u16>> {
    let mut found: BTreeMap<Hostname, BTreeSet<u16>> = BTreeMap::new();
    let mut add = |destination: &Destination| {
        let port = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
        found.entry(Hostname::new(&destination.host)).or_default().insert(port.unwrap_or(0));
    };
    for route in &spec.http {
        let is_for_others = |name: &String| !name.is_empty() && name != client;
        let mut sources = route.r#match.iter().map(|rule| &rule.source_namespace).peekable();
        if sources.peek().is_some() && sources.all(is_for_others) {
            continue;
        }
        route.route.iter().filter_map(|route| route.destination.as_ref()).for_each(&mut add);
        route.mirror.iter().for_each(&mut add);
        route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()).for_each(&mut add);
    }
    let bytes = spec.tcp.iter().map(|route| &route.route).chain(spec.tls.iter().map(|route| &route.route));
    bytes.flatten().filter_map(|route| route.destination.as_ref()).for_each(&mut add);
    found
}
