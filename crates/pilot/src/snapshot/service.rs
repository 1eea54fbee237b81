//! Services: names, ports and the endpoints behind them.

mod addresses;
mod entry;
mod kubernetes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::{Namespace, TargetPort};
use config::{Kind, Store};
use names::{Hostname, annotation};

use super::authn;
use super::endpoint::{Endpoint, Endpoints, Instances, Slices};
use super::network::Networks;
use super::visibility::Visibility;
use crate::protocol::Protocol;
use crate::settings::Settings;

/// Where a service is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registry {
    /// A Service of Kubernetes.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// How a client comes to an address of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane sends endpoints.
    Endpoints,
    /// Envoy asks DNS and uses all answers.
    Dns,
    /// Envoy asks DNS and uses one answer at a time.
    DnsRoundRobin,
    /// The client has chosen the address already.
    Passthrough,
    /// Envoy asks DNS for the name in the request.
    DynamicDns,
}

impl Resolution {
    /// Whether Envoy resolves names of endpoints that the cluster lists.
    #[must_use]
    pub fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }
}

/// Which endpoints a service prefers by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Those of the client's zone, then of its region (`PreferClose`, `PreferSameZone`).
    SameZone,
    /// Those of the client's node, then as near as there are (`PreferSameNode`).
    SameNode,
}

/// Addresses that were allocated for a host without any, for proxies that
/// answer DNS queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutoAddresses {
    /// Of IPv4.
    pub v4: Option<std::net::Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<std::net::Ipv6Addr>,
}

/// A service: one of Kubernetes, or one host of one ServiceEntry.
///
/// Several ServiceEntries may have the same host in a namespace. Each is a
/// service of its own with its own addresses and ports; they share `endpoints`.
/// With a Kubernetes service of that name they do so too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is known from.
    pub registry: Registry,
    /// How clients come to an address.
    pub resolution: Resolution,
    /// Whether it is outside of the mesh: then nobody there speaks mutual TLS by itself.
    pub is_external: bool,
    /// Further names that its servers' certificates may bear.
    pub subject_alt_names: Vec<String>,
    /// When it was made, as in [`config::Meta`].
    pub created: Option<String>,
    /// Its full name; for a ServiceEntry perhaps a wildcard.
    pub host: Hostname,
    /// Its name; of a ServiceEntry its host as written.
    pub name: String,
    /// Name of the object that it comes from.
    pub object_name: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels of the object that it comes from.
    pub labels: BTreeMap<String, String>,
    /// Its ports. The target of a ServiceEntry's port is where the server listens;
    /// for one with [`Resolution::Passthrough`] it differs from the number only if
    /// connections are to go to another port than the client chose.
    pub ports: Vec<Port>,
    /// Its addresses: IP addresses of Kubernetes, where all stand for the same
    /// listener (dual stack); IP addresses and ranges (`10.0.0.0/8`) of a
    /// ServiceEntry, where each is a listener of its own. None when it is headless
    /// or has no address.
    pub addresses: Vec<String>,
    /// Addresses that were allocated because it has none; see
    /// [`Service::addresses_for`].
    pub auto_addresses: AutoAddresses,
    /// Whether it is a headless service of Kubernetes: clients choose the endpoint
    /// by its address.
    pub is_headless: bool,
    /// Labels of its workloads.
    pub selector: BTreeMap<String, String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Names that stand for it (`ExternalName` services).
    pub aliases: Vec<Hostname>,
    /// Whether only endpoints on the client's node count.
    pub is_node_local: bool,
    /// Whether endpoints that are not ready are in DNS too.
    pub publishes_not_ready: bool,
    /// Which endpoints it prefers.
    pub traffic_distribution: TrafficDistribution,
    /// Whether connections to all addresses that DNS gives are tried at once
    /// (annotation `istio.io/connect-strategy: RACE_FIRST_TCP_CONNECT`).
    pub races_connections: bool,
    /// Endpoints of all ports.
    pub endpoints: Arc<Endpoints>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; may be empty.
    pub name: String,
    /// Number that clients use.
    pub number: u16,
    /// Port of the workload.
    pub target: TargetPort,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Service {
    /// The object that it comes from.
    #[must_use]
    pub fn origin(&self) -> config::Key {
        let kind = match self.registry {
            Registry::Kubernetes => Kind::Service,
            Registry::External => Kind::ServiceEntry,
        };
        config::Key {
            kind,
            namespace: self.namespace.as_str().into(),
            name: self.object_name.as_str().into(),
        }
    }

    /// The port of that number, of those that the mesh carries.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number && port.protocol != Protocol::Udp)
    }

    /// Endpoints of a port.
    pub fn endpoints_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.of_port(&port.name).iter()
    }

    /// Endpoints of a port that clusters list themselves (DNS): by the number of
    /// the port where they were made for one.
    pub fn listed_endpoints_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.by_port().flat_map(move |(name, list)| {
            list.iter().filter(move |endpoint| match endpoint.service_port {
                0 => name == port.name,
                number => number == port.number,
            })
        })
    }

    /// Whether its wildcard stands for names that nobody lists and that Envoy asks DNS for.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.resolution == Resolution::DynamicDns && self.host.is_wildcard()
    }
}

/// What services are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) store: &'a Store,
    pub(super) settings: &'a Settings,
    pub(super) authn: &'a Arc<authn::Index>,
    pub(super) networks: &'a Arc<Networks>,
    pub(super) domain: &'a str,
}

/// Kinds of which workloads are made besides pods: a ServiceEntry may select
/// pods, services may be gateways of networks.
const OF_WORKLOADS: &[Kind] =
    &[Kind::Node, Kind::WorkloadEntry, Kind::ServiceEntry, Kind::Service, Kind::Namespace];

/// Key of endpoints: those of services of one name and namespace are one set.
type Key = (String, Hostname);

/// All services, and what the next ones are made from.
#[derive(Debug)]
pub(super) struct Made {
    /// Services, the oldest first.
    pub(super) services: Vec<Arc<Service>>,
    authn: Arc<authn::Index>,
    instances: Arc<Instances>,
    slices: Slices,
    /// Endpoints that are not in slices.
    others: Arc<BTreeMap<Key, Arc<Endpoints>>>,
}

impl Made {
    /// Makes all services.
    pub(super) fn new(context: &Context<'_>) -> Self {
        let instances = Instances::build(context.store, context.networks, context.settings, None);
        Self::with(context, Arc::new(instances), None)
    }

    /// Makes what the change of objects of those kinds has changed; the rest is
    /// taken over as it is.
    pub(super) fn next(&self, context: &Context<'_>, kinds: &BTreeSet<Kind>) -> Self {
        if OF_WORKLOADS.iter().any(|kind| kinds.contains(kind)) {
            return Self::new(context);
        }
        let instances = if kinds.contains(&Kind::Pod) {
            let Context { store, networks, settings, .. } = context;
            Arc::new(Instances::build(store, networks, settings, Some(&self.instances)))
        } else {
            self.instances.clone()
        };
        if !Arc::ptr_eq(&self.authn, context.authn) {
            return Self::with(context, instances, None);
        }
        let before = Some((&self.slices, &*self.instances));
        if !instances.selects_as(&self.instances) {
            return Self::with(context, instances, before);
        }
        // Only the slices of Kubernetes services are left.
        let slices = kubernetes::slices(context, &instances, before);
        let mut joined = BTreeMap::new();
        let services = self.services.iter().map(|service| {
            let endpoints = endpoints(context, &slices, &self.others, &mut joined, service);
            if endpoints == service.endpoints {
                return service.clone();
            }
            Arc::new(Service { endpoints, ..(**service).clone() })
        });
        Self {
            services: services.collect(),
            authn: self.authn.clone(),
            instances,
            others: self.others.clone(),
            slices,
        }
    }

    fn with(context: &Context<'_>, instances: Arc<Instances>, before: Option<(&Slices, &Instances)>) -> Self {
        let slices = kubernetes::slices(context, &instances, before);
        let mut others: BTreeMap<Key, Endpoints> = BTreeMap::new();
        let mut services = kubernetes::services(context, &instances, &mut others);
        services.extend(entry::services(context, &instances, &mut others));
        let others = others.into_iter().map(|(key, endpoints)| (key, Arc::new(endpoints))).collect();
        kubernetes::set_aliases(context, &mut services);
        services
            .sort_by(|a, b| (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace)));
        if context.settings.features.ip_autoallocate {
            addresses::allocate(&mut services);
        }
        let mut joined = BTreeMap::new();
        for service in &mut services {
            service.endpoints = endpoints(context, &slices, &others, &mut joined, service);
        }
        Self {
            services: services.into_iter().map(Arc::new).collect(),
            authn: context.authn.clone(),
            instances,
            slices,
            others: Arc::new(others),
        }
    }
}

/// The endpoints of a service: those of slices and all others. Where there are
/// both, `joined` keeps them for the next service of the same name.
fn endpoints(
    context: &Context<'_>,
    slices: &Slices,
    others: &BTreeMap<Key, Arc<Endpoints>>,
    joined: &mut BTreeMap<Key, Arc<Endpoints>>,
    service: &Service,
) -> Arc<Endpoints> {
    let suffix = format!(".{}.svc.{}", service.namespace, context.domain);
    let name = service.host.as_str().strip_suffix(&suffix);
    let sliced = name.and_then(|name| slices.get(&service.namespace, name));
    let key = (service.namespace.clone(), service.host.clone());
    match (sliced, others.get(&key)) {
        (None, None) => Arc::default(),
        (Some(endpoints), None) | (None, Some(endpoints)) => endpoints.clone(),
        (Some(sliced), Some(others)) => {
            joined.entry(key).or_insert_with(|| Arc::new(sliced.with(others))).clone()
        }
    }
}

/// The preference of a service: its own field, its annotation, its namespace's.
fn traffic_distribution(
    store: &Store,
    field: &str,
    annotations: &BTreeMap<String, String>,
    namespace: &str,
) -> TrafficDistribution {
    match field {
        "PreferClose" | "PreferSameZone" => return TrafficDistribution::SameZone,
        "PreferSameNode" => return TrafficDistribution::SameNode,
        _ => {}
    }
    let of_namespace = store.get::<Namespace>("", namespace);
    let text = |annotations: &BTreeMap<String, String>| {
        annotations.get(annotation::TRAFFIC_DISTRIBUTION).filter(|text| !text.is_empty()).cloned()
    };
    let text = text(annotations).or_else(|| text(&of_namespace?.0.meta.annotations));
    match text.unwrap_or_default().to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => TrafficDistribution::SameZone,
        "prefersamenode" => TrafficDistribution::SameNode,
        _ => TrafficDistribution::Any,
    }
}

/// An address as Envoy reads it.
fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}
