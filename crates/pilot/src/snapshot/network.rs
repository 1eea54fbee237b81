//! Networks of the mesh: which one an address is in, and the gateways by which
//! the others are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::kube::{self, Namespace};
use config::{Meta, Problem, Severity, Store};
use mesh::MeshNetworks;
use names::{Hostname, label};

use super::Snapshot;
use super::endpoint::Locality;

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

impl Networks {
    /// From the settings, the label of the root namespace and the services that
    /// are labeled as gateways.
    pub(super) fn build(
        store: &Store,
        settings: &MeshNetworks,
        cluster_id: &str,
        root_namespace: &str,
        domain: &str,
    ) -> Self {
        let mut made = Self {
            default: store
                .get::<Namespace>("", root_namespace)
                .and_then(|(object, _)| object.meta.labels.get(label::NETWORK))
                .filter(|network| !network.is_empty())
                .cloned(),
            registry: settings.of_registry(cluster_id).map(str::to_owned),
            ranges: settings.ranges().map(|(range, network)| (range, network.to_owned())).collect(),
            ..Self::default()
        };
        // Of several ranges the smallest counts.
        made.ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.bits()));
        let mut all: BTreeSet<Gateway> = settings
            .gateways()
            .map(|gateway| Gateway {
                address: gateway.address,
                port: gateway.port,
                cluster: String::new(),
                network: gateway.network.to_owned(),
            })
            .collect();
        for (object, service) in store.all::<kube::Service>() {
            for (network, port) in leads_into(settings, cluster_id, domain, &object.meta, service) {
                for address in service.external().filter_map(|ip| ip.parse().ok()) {
                    let (network, cluster) = (network.clone(), cluster_id.to_owned());
                    all.insert(Gateway { address, port, cluster, network });
                }
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

/// The networks that a service is the gateway of, with its port: by its labels,
/// else by the settings.
fn leads_into(
    settings: &MeshNetworks,
    cluster_id: &str,
    domain: &str,
    meta: &Meta,
    service: &kube::Service,
) -> Vec<(String, u16)> {
    match meta.labels.get(label::NETWORK) {
        Some(network) if !network.is_empty() => {
            let port = labeled_port(meta);
            let has_port = service.ports.iter().any(|known| known.port == port);
            has_port.then(|| (network.clone(), port)).into_iter().collect()
        }
        _ => {
            let host = Hostname::of_service(&meta.name, &meta.namespace, domain);
            let networks = settings.gateways_by_service(cluster_id, host.as_str());
            networks.map(|(network, port)| (network.to_owned(), port)).collect()
        }
    }
}

fn labeled_port(meta: &Meta) -> u16 {
    meta.labels.get(label::GATEWAY_PORT).and_then(|port| port.parse().ok()).unwrap_or(GATEWAY_PORT)
}

/// What keeps services that are gateways of networks from being used as such.
pub(super) fn problems(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    let settings = &snapshot.settings;
    let mut problems = Vec::new();
    for (object, service) in store.all::<kube::Service>() {
        let meta = &object.meta;
        let networks = leads_into(&settings.networks, &settings.cluster_id, &snapshot.domain, meta, service);
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
            if let Some(network) = meta.labels.get(label::NETWORK).filter(|network| !network.is_empty()) {
                let port = labeled_port(meta);
                let message = format!(
                    "is labeled as gateway of the network {network:?} and has no port {port}: add it, or name \
                     another in the label {}",
                    label::GATEWAY_PORT
                );
                tell("spec.ports".into(), message);
            }
            continue;
        }
        if service.service_type != "LoadBalancer" {
            continue;
        }
        for (index, one) in service.status.load_balancer.ingress.iter().enumerate() {
            if one.ip.is_empty() && !one.hostname.is_empty() {
                let message = format!(
                    "{:?} is no way into the network: host names of gateways are not resolved, so give addresses \
                     in externalIPs",
                    one.hostname
                );
                tell(format!("status.loadBalancer.ingress[{index}].hostname"), message);
            }
        }
    }
    problems
}

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
