//! Networks of the mesh: which one an address is in, and the gateways by which
//! the others are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::kube::{self, Namespace};
use config::{Meta, Position, Problem, Severity, Store};
use names::{Hostname, annotation, label};

use super::endpoint::Locality;
use crate::settings::Settings;

/// Port of a network's gateway unless a label says another.
const GATEWAY_PORT: u16 = 15443;

/// A way into a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where it passes mutual TLS on by server name.
    pub port: u16,
    /// Cluster it is in; empty when it is not known.
    pub cluster: String,
    /// Network it leads into.
    pub network: String,
}

/// All networks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Networks {
    default: Option<String>,
    registry: Option<String>,
    ranges: Vec<(mesh::networks::Range, String)>,
    gateways: BTreeMap<String, Vec<Gateway>>,
    scale: u32,
}

/// A way into a network as somebody has written it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    /// Address, or host name.
    address: String,
    port: u16,
    cluster: String,
    network: String,
}

impl Networks {
    /// From the settings, the label of the root namespace and the services that
    /// are labeled as gateways.
    pub(super) fn build(store: &Store, settings: &Settings) -> Self {
        let networks = &settings.networks;
        let mut made = Self {
            default: store
                .get::<Namespace>("", &settings.mesh.root_namespace)
                .and_then(|(object, _)| object.meta.labels.get(label::NETWORK))
                .filter(|network| !network.is_empty())
                .cloned(),
            registry: networks.of_registry(&settings.cluster_id).map(str::to_owned),
            ranges: networks.ranges().map(|(range, network)| (range, network.to_owned())).collect(),
            ..Self::default()
        };
        // Of several ranges the smallest counts.
        made.ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.bits()));
        let mut all: BTreeSet<Gateway> = BTreeSet::new();
        for Way { address, port, cluster, network } in ways(store, settings) {
            let named = settings.gateway_names.get(&address).into_iter().flatten().copied();
            for address in address.parse().ok().into_iter().chain(named) {
                all.insert(Gateway { address, port, cluster: cluster.clone(), network: network.clone() });
            }
        }
        for gateway in all {
            made.gateways.entry(gateway.network.clone()).or_default().push(gateway);
        }
        made.scale = made.scale();
        made
    }

    /// The network of an address: by the workload's label, else by the root
    /// namespace's, else by the settings.
    #[must_use]
    pub fn of<'a>(&'a self, ip: Option<IpAddr>, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let own = labels.get(label::NETWORK).filter(|network| !network.is_empty());
        own.or(self.default.as_ref())
            .or(self.registry.as_ref())
            .or_else(|| {
                let ip = ip?;
                self.ranges.iter().find(|(range, _)| range.contains(ip)).map(|(_, network)| network)
            })
            .map(String::as_str)
    }

    /// Whether some network is reached by gateways.
    #[must_use]
    pub fn has_gateways(&self) -> bool {
        !self.gateways.is_empty()
    }

    /// Gateways of all networks.
    pub fn all_gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.values().flatten()
    }

    /// Gateways of a network: those of the cluster if it has any, else all.
    #[must_use]
    pub fn gateways(&self, network: &str, cluster: &str) -> Vec<&Gateway> {
        let all = self.gateways.get(network).map_or(&[][..], Vec::as_slice);
        let of_cluster: Vec<_> = all.iter().filter(|gateway| gateway.cluster == cluster).collect();
        if of_cluster.is_empty() { all.iter().collect() } else { of_cluster }
    }

    /// What weights are multiplied by, so that they can be shared out among any
    /// network's gateways without a rest.
    #[must_use]
    pub fn weight_scale(&self) -> u32 {
        self.scale.max(1)
    }

    fn scale(&self) -> u32 {
        let mut counts: BTreeSet<u32> = BTreeSet::new();
        for list in self.gateways.values() {
            counts.insert(u32::try_from(list.len()).unwrap_or(u32::MAX));
            let mut clusters: BTreeMap<&str, u32> = BTreeMap::new();
            for gateway in list {
                *clusters.entry(&gateway.cluster).or_default() += 1;
            }
            counts.extend(clusters.values());
        }
        counts.into_iter().fold(1, |all, count| match all.checked_mul(count / gcd(all, count)) {
            Some(scale) => scale,
            None => all,
        })
    }
}

/// Host names of gateways: those whose addresses [`Settings::gateway_names`] is to have.
#[must_use]
pub fn names(store: &Store, settings: &Settings) -> BTreeSet<String> {
    if !settings.features.resolve_gateway_names {
        return BTreeSet::new();
    }
    let all = ways(store, settings).into_iter().map(|way| way.address);
    all.filter(|address| address.parse::<IpAddr>().is_err()).collect()
}

/// All ways into networks: of the settings, and of services.
fn ways(store: &Store, settings: &Settings) -> BTreeSet<Way> {
    let of_settings = settings.networks.gateways().map(|gateway| Way {
        address: gateway.address.to_owned(),
        port: gateway.port,
        cluster: String::new(),
        network: gateway.network.to_owned(),
    });
    let mut all: BTreeSet<Way> = of_settings.collect();
    for (object, service) in store.all::<kube::Service>() {
        let networks = leads_into(settings, &object.meta, service);
        if networks.is_empty() {
            continue;
        }
        let addresses = match NodePorts::of(&object.meta, service) {
            Some(ports) => ports.addresses(store),
            None => service.external().map(str::to_owned).collect(),
        };
        for (network, port) in networks {
            for address in &addresses {
                all.insert(Way {
                    address: address.clone(),
                    port,
                    cluster: settings.cluster_id.to_string(),
                    network: network.clone(),
                });
            }
        }
    }
    all
}

/// The nodes by whose ports a service is reached.
#[derive(Debug)]
struct NodePorts {
    /// Labels that they have. `Err` when that cannot be read: all nodes.
    selector: Result<BTreeMap<String, String>, String>,
}

impl NodePorts {
    /// Of a service that says which nodes.
    fn of(meta: &Meta, service: &kube::Service) -> Option<Self> {
        let text = meta.annotations.get(annotation::NODE_SELECTOR)?;
        if service.service_type != "NodePort" {
            return None;
        }
        let selector = match text.as_str() {
            "" => Ok(BTreeMap::new()),
            text => serde_json::from_str(text).map_err(|error| error.to_string()),
        };
        Some(Self { selector })
    }

    /// Addresses of the nodes.
    fn addresses(&self, store: &Store) -> Vec<String> {
        let wanted = || self.selector.iter().flatten();
        let nodes = store
            .all::<kube::Node>()
            .filter(|(object, _)| wanted().all(|(name, value)| object.meta.labels.get(name) == Some(value)));
        nodes.filter_map(|(_, node)| node.external()).map(str::to_owned).collect()
    }
}

/// The networks that a service is the gateway of, with its port: by its labels,
/// else by the settings. It is the node's where nodes stand for it.
fn leads_into(settings: &Settings, meta: &Meta, service: &kube::Service) -> Vec<(String, u16)> {
    let mut networks: Vec<(String, u16)> = match meta.labels.get(label::NETWORK) {
        Some(network) if !network.is_empty() => {
            let port = labeled_port(meta);
            let has_port = service.ports.iter().any(|known| known.port == port);
            has_port.then(|| (network.clone(), port)).into_iter().collect()
        }
        _ => {
            let host = Hostname::of_service(&meta.name, &meta.namespace, &settings.domain);
            let networks = settings.networks.gateways_by_service(&settings.cluster_id, host.as_str());
            networks.map(|(network, port)| (network.to_owned(), port)).collect()
        }
    };
    if NodePorts::of(meta, service).is_some() {
        networks.iter_mut().for_each(|(_, port)| *port = node_port(service, *port).unwrap_or(*port));
        // The cluster has not given it one yet.
        networks.retain(|(_, port)| *port != 0);
    }
    networks
}

/// Port of the nodes that stands for one of the service, if it has that one.
fn node_port(service: &kube::Service, port: u16) -> Option<u16> {
    service.ports.iter().find(|known| known.port == port).map(|known| known.node_port)
}

fn labeled_port(meta: &Meta) -> u16 {
    meta.labels.get(label::GATEWAY_PORT).and_then(|port| port.parse().ok()).unwrap_or(GATEWAY_PORT)
}

/// What is wrong with a host name whose addresses are not known.
fn unknown(settings: &Settings, name: &str) -> Option<String> {
    let why = if settings.features.resolve_gateway_names {
        "its addresses are not known (istiod looks it up again and again)"
    } else {
        "RESOLVE_HOSTNAME_GATEWAYS is false"
    };
    let is_known = settings.gateway_names.contains_key(name);
    (!is_known).then(|| format!("{name:?} is no way into the network: {why}"))
}

/// What keeps gateways of networks from being used as such.
pub(super) fn problems(store: &Store, settings: &Settings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = settings
        .networks
        .gateways()
        .filter(|gateway| gateway.address.parse::<IpAddr>().is_err())
        .filter_map(|gateway| {
            Some(Problem {
                severity: Severity::Warning,
                object: None,
                position: Position { file: "meshNetworks".into(), line: 0 },
                field: format!("networks.{}.gateways", gateway.network),
                message: unknown(settings, gateway.address)?,
            })
        })
        .collect();
    for (object, service) in store.all::<kube::Service>() {
        let meta = &object.meta;
        let networks = leads_into(settings, meta, service);
        let mut tell = |field: String, message: String| {
            problems.push(Problem {
                severity: Severity::Warning,
                object: Some(object.key.clone()),
                position: object.position.clone(),
                field,
                message,
            });
        };
        if networks.is_empty() {
            if let Some(network) = meta.labels.get(label::NETWORK).filter(|network| !network.is_empty())
                && node_port(service, labeled_port(meta)).is_none()
            {
                let message = format!(
                    "is labeled as gateway of the network {network:?} and has no port {}: add it, or name \
                     another in the label {}",
                    labeled_port(meta),
                    label::GATEWAY_PORT
                );
                tell("spec.ports".into(), message);
            }
            continue;
        }
        if let Some(nodes) = NodePorts::of(meta, service) {
            if let Err(error) = &nodes.selector {
                let message = format!(
                    "cannot be read ({error}), so all nodes are taken: expected labels such as {{\"ingress\": \"true\"}}"
                );
                tell(format!("metadata.annotations[{}]", annotation::NODE_SELECTOR), message);
            } else if nodes.addresses(store).is_empty() {
                let message =
                    "selects no node with an ExternalIP: the network cannot be entered by it".into();
                tell(format!("metadata.annotations[{}]", annotation::NODE_SELECTOR), message);
            }
            continue;
        }
        if service.service_type != "LoadBalancer" {
            continue;
        }
        for (index, one) in service.status.load_balancer.ingress.iter().enumerate() {
            if one.ip.is_empty()
                && !one.hostname.is_empty()
                && let Some(message) = unknown(settings, &one.hostname)
            {
                tell(format!("status.loadBalancer.ingress[{index}].hostname"), message);
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Labels with those that say where a workload is, as subsets and
/// `failoverPriority` may name them.
#[must_use]
pub fn augmented(
    labels: &BTreeMap<String, String>,
    locality: &Locality,
    cluster: &str,
    node_name: &str,
    network: &str,
) -> BTreeMap<String, String> {
    let mut all = labels.clone();
    let places = [
        (label::REGION, locality.region.as_str()),
        (label::ZONE, &locality.zone),
        (label::SUB_ZONE, &locality.sub_zone),
        (label::CLUSTER, cluster),
        (label::HOSTNAME, node_name),
    ];
    for (key, value) in places.into_iter().filter(|(_, value)| !value.is_empty()) {
        all.insert(key.to_owned(), value.to_owned());
    }
    if !network.is_empty() && all.get(label::NETWORK).is_none_or(String::is_empty) {
        all.insert(label::NETWORK.to_owned(), network.to_owned());
    }
    all
}
