//! Endpoints of services, from EndpointSlices and WorkloadEntries.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::kube::{EndpointSlice, Node, TargetPort};
use config::{Meta, Store};
use names::{SpiffeId, label};
use proto::istio::networking::v1alpha3::WorkloadEntry;

use super::Workload;
use super::authn::{self, MtlsMode};
use super::service::Port;

/// What endpoints are made from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// All objects.
    pub store: &'a Store,
    /// Pods by address.
    pub pods: &'a BTreeMap<IpAddr, Workload>,
    /// Mutual TLS policies.
    pub authn: &'a authn::Index,
    /// Name of the cluster.
    pub cluster_id: &'a str,
}

/// Where something runs: region, zone, sub-zone; parts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

impl Locality {
    /// `REGION/ZONE/SUBZONE`, with `separator` between the parts.
    #[must_use]
    pub fn parse(text: &str, separator: char) -> Self {
        let mut parts = text.splitn(3, separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }
}

/// One address and port behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address.
    pub address: String,
    /// Port there.
    pub port: u16,
    /// Name of the service's port.
    pub port_name: String,
    /// Labels of the workload, with those of its place.
    pub labels: BTreeMap<String, String>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload; empty when not known.
    pub service_account: String,
    /// Whether it accepts mutual TLS of the mesh.
    pub accepts_mtls: bool,
    /// Where it runs.
    pub locality: Locality,
    /// `WORKLOAD;NAMESPACE;SERVICE;REVISION;CLUSTER`, which telemetry reads.
    pub workload: String,
    /// Share of the load.
    pub weight: u32,
    /// Whether it can take requests.
    pub is_ready: bool,
    /// Whether its health was told by Kubernetes.
    pub has_health: bool,
    /// Node it runs on.
    pub node_name: String,
    /// Its host name within a headless service; empty when it has none.
    pub hostname: String,
}

impl Endpoint {
    /// The identity that its certificate should prove.
    #[must_use]
    pub fn identity(&self, trust_domain: &str) -> Option<String> {
        if self.service_account.is_empty() {
            return None;
        }
        Some(format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.namespace, self.service_account))
            .filter(|id| id.parse::<SpiffeId>().is_ok())
    }
}

/// Endpoints of all EndpointSlices by namespace and name of the service.
pub(super) fn by_service(context: &Context<'_>) -> BTreeMap<(String, String), Vec<Endpoint>> {
    let mut all: BTreeMap<(String, String), Vec<Endpoint>> = BTreeMap::new();
    for (object, slice) in context.store.all::<EndpointSlice>() {
        let Some(service) = object.meta.labels.get(label::SERVICE_NAME) else { continue };
        if slice.address_type == "FQDN" {
            continue;
        }
        let list = all.entry((object.meta.namespace.clone(), service.clone())).or_default();
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions;
            if conditions.terminating == Some(true) {
                continue;
            }
            let is_ready = conditions.ready.unwrap_or(true);
            for address in &endpoint.addresses {
                let Some(ip) = usable(address) else { continue };
                let workload = context.pods.get(&ip);
                for port in &slice.ports {
                    let Some(number) = port.port.filter(|number| *number > 0) else { continue };
                    let node = endpoint.node_name.as_deref();
                    let mut made = of_pod(context, address, number, workload, &object.meta.namespace, node);
                    made.port_name = port.name.clone().unwrap_or_default();
                    made.is_ready = is_ready;
                    made.hostname = endpoint.hostname.clone().unwrap_or_default();
                    // Two slices may hold the same endpoint while it moves between them.
                    if !list.contains(&made) {
                        list.push(made);
                    }
                }
            }
        }
    }
    all
}

/// An address that Envoy takes: one that is none makes it refuse the endpoints
/// of all clusters.
fn usable(address: &str) -> Option<IpAddr> {
    address.parse().ok()
}

fn of_pod(
    context: &Context<'_>,
    address: &str,
    port: u16,
    workload: Option<&Workload>,
    namespace: &str,
    node_name: Option<&str>,
) -> Endpoint {
    let Some(Workload { meta, pod }) = workload else {
        return Endpoint {
            address: address.into(),
            port,
            port_name: String::new(),
            labels: BTreeMap::new(),
            namespace: namespace.into(),
            service_account: String::new(),
            accepts_mtls: false,
            locality: Locality::default(),
            workload: format!(";;;;{}", context.cluster_id),
            weight: 1,
            is_ready: true,
            has_health: true,
            node_name: node_name.unwrap_or_default().into(),
            hostname: String::new(),
        };
    };
    let node_name =
        if pod.spec.node_name.is_empty() { node_name.unwrap_or_default() } else { &pod.spec.node_name };
    let locality = match meta.labels.get(label::LOCALITY) {
        Some(text) if !text.is_empty() => Locality::parse(text, '.'),
        _ => of_node(context.store, node_name),
    };
    let modes = context.authn.modes(&meta.namespace, &meta.labels);
    let has_sidecar = meta.labels.get(label::TLS_MODE).is_some_and(|mode| mode == label::TLS_MODE_ISTIO);
    Endpoint {
        address: address.into(),
        port,
        port_name: String::new(),
        labels: meta.labels.clone(),
        namespace: meta.namespace.clone(),
        service_account: pod.service_account().into(),
        accepts_mtls: has_sidecar && modes.of_port(port) != MtlsMode::Disable,
        locality,
        workload: describe(meta, &workload_name(meta), context.cluster_id),
        weight: 1,
        is_ready: true,
        has_health: true,
        node_name: node_name.into(),
        hostname: String::new(),
    }
}

fn of_node(store: &Store, name: &str) -> Locality {
    let Some((object, _)) = store.get::<Node>("", name) else { return Locality::default() };
    let get = |key: &str| object.meta.labels.get(key).cloned().unwrap_or_default();
    Locality { region: get(label::REGION), zone: get(label::ZONE), sub_zone: get(label::SUB_ZONE) }
}

/// The name of what made the pod, without the hash that a Deployment adds.
fn workload_name(meta: &Meta) -> String {
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) else {
        return meta.name.clone();
    };
    match meta.labels.get("pod-template-hash") {
        Some(hash) if owner.kind == "ReplicaSet" => {
            owner.name.strip_suffix(&format!("-{hash}")).unwrap_or(&owner.name).to_owned()
        }
        _ => owner.name.clone(),
    }
}

fn describe(meta: &Meta, name: &str, cluster_id: &str) -> String {
    let label = |keys: &[&str], default: &str| {
        keys.iter().find_map(|key| meta.labels.get(*key)).map_or_else(|| default.to_owned(), Clone::clone)
    };
    let service = label(&[label::CANONICAL_NAME, "app.kubernetes.io/name", "app"], name);
    let revision = label(&[label::CANONICAL_REVISION, "app.kubernetes.io/version", "version"], "");
    format!("{name};{};{service};{revision};{cluster_id}", meta.namespace)
}

/// Endpoints of the WorkloadEntries that a service selects.
pub(super) fn of_workload_entries(
    context: &Context<'_>,
    namespace: &str,
    selector: &BTreeMap<String, String>,
    ports: &[Port],
) -> Vec<Endpoint> {
    if selector.is_empty() {
        return Vec::new();
    }
    let mut made = Vec::new();
    for (object, entry) in context.store.all::<WorkloadEntry>() {
        let mut labels = entry.labels.clone();
        labels.extend(object.meta.labels.clone());
        if object.meta.namespace != namespace
            || !config::matches(selector, &labels)
            // Host names and sockets are for ServiceEntries only, as in Istio.
            || usable(&entry.address).is_none()
        {
            continue;
        }
        let mut meta = object.meta.clone();
        meta.labels = labels;
        for port in ports {
            let target = entry.ports.get(&port.name).and_then(|number| u16::try_from(*number).ok());
            let by_service = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => {
                    entry.ports.get(name).and_then(|number| u16::try_from(*number).ok())
                }
            };
            let Some(number) = target.or(by_service) else { continue };
            let modes = context.authn.modes(namespace, &meta.labels);
            let is_istio = match meta.labels.get(label::TLS_MODE) {
                Some(mode) => mode == label::TLS_MODE_ISTIO,
                None => !entry.service_account.is_empty(),
            };
            made.push(Endpoint {
                address: entry.address.clone(),
                port: number,
                port_name: port.name.clone(),
                labels: meta.labels.clone(),
                namespace: namespace.into(),
                service_account: entry.service_account.clone(),
                accepts_mtls: is_istio && modes.of_port(number) != MtlsMode::Disable,
                locality: Locality::parse(&entry.locality, '/'),
                workload: describe(&meta, &object.meta.name, context.cluster_id),
                weight: entry.weight.max(1),
                is_ready: true,
                has_health: false,
                node_name: String::new(),
                hostname: String::new(),
            });
        }
    }
    made
}
