//! Networks of the mesh: which one an address is in, and the gateways by which
//! the others are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::Store;
use config::kube::{self, Namespace};
use mesh::MeshNetworks;
use names::{Hostname, label};

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
            let host = Hostname::of_service(&object.meta.name, &object.meta.namespace, domain);
            let named: Vec<(String, u16)> = match object.meta.labels.get(label::NETWORK) {
                Some(network) if !network.is_empty() => {
                    let port = object.meta.labels.get(label::GATEWAY_PORT).and_then(|port| port.parse().ok());
                    let port = port.unwrap_or(GATEWAY_PORT);
                    let has_port = service.ports.iter().any(|known| known.port == port);
                    has_port.then(|| (network.clone(), port)).into_iter().collect()
                }
                _ => settings
                    .gateways_by_service(cluster_id, host.as_str())
                    .map(|(network, port)| (network.to_owned(), port))
                    .collect(),
            };
            for (network, port) in named {
                for address in service.external_ips.iter().filter_map(|ip| ip.parse().ok()) {
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
