//! Proxies that get the same: what of a proxy its outbound resources depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::Store;
use prost_types::Struct;
use prost_types::value::Kind as Value;
use proto::istio::extensions::v1alpha1::{TrafficExtension, WasmPlugin};
use proto::istio::networking::v1alpha3::{
    DestinationRule, EnvoyFilter, Gateway, LocalityLoadBalancerSetting, Sidecar, TrafficPolicy,
    VirtualService,
};
use proto::istio::security::v1beta1::{AuthorizationPolicy, RequestAuthentication};
use proto::istio::telemetry::v1alpha1::Telemetry;

use crate::proxy::{Interception, Proxy, ProxyKind};
use crate::scope::{udp_ports, workload_ports};
use crate::snapshot::endpoint::Locality;
use crate::snapshot::service::TrafficDistribution;
use crate::snapshot::{Service, Snapshot};

/// How much a resource tells proxies apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Detail {
    /// Clusters, endpoints, routes and names: of labels only those that
    /// something in the mesh selects by.
    Client,
    /// Listeners, too: they name the workload in traces and telemetry.
    Workload,
}

/// All that outbound resources read of a proxy. Two proxies of equal classes
/// get equal ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    detail: Detail,
    is_router: bool,
    /// Of gateways: ports that they listen on in place of those in front.
    ports: BTreeMap<u16, u16>,
    /// Of gateways that offer HTTP/3: ports in front that take UDP.
    udp_ports: BTreeSet<u16>,
    is_proxyless: bool,
    pub(crate) namespace: String,
    domain: String,
    cluster_id: String,
    mesh_id: String,
    /// As its address and its pod have it, and as it says itself.
    network: [String; 2],
    istio_version: String,
    interception: u8,
    locality: [String; 3],
    flags: [bool; 4],
    idle_timeout: Option<String>,
    /// By what name collectors of traces know the workload.
    traced_as: [String; 2],
    extensions: Vec<String>,
    /// Whether each address is one of IPv4.
    families: Vec<bool>,
    /// What the proxy and its pod say.
    labels: [BTreeMap<String, String>; 2],
    metadata: Vec<u8>,
    /// Only where something is told apart by nodes.
    node_name: Option<String>,
    /// Only of proxies that are endpoints of a headless service: they do not
    /// reach themselves by it.
    ips: Vec<IpAddr>,
}

/// Metadata that is a proxy's own or stands elsewhere in its class.
const OWN_METADATA: &[&str] = &[
    "ANNOTATIONS",
    "APP_CONTAINERS",
    "CLUSTER_ID",
    "DNS_CAPTURE",
    "HTTP10",
    "IDLE_TIMEOUT",
    "INSTANCE_IPS",
    "INTERCEPTION_MODE",
    "ISTIO_PROXY_SHA",
    "ISTIO_VERSION",
    "LABELS",
    "MESH_ID",
    "NAME",
    "NAMESPACE",
    "NETWORK",
    "NODE_NAME",
    "OWNER",
    "PILOT_SAN",
    "POD_NAME",
    "POD_PORTS",
    "SERVICE_ACCOUNT",
];
/// Metadata that names the workload.
const WORKLOAD_METADATA: &[&str] = &["WORKLOAD_NAME"];
/// Labels that differ from pod to pod of a workload.
const POD_LABELS: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "pod-template-generation",
];
/// Labels that decide without any object that names them.
const PLACE_LABELS: &[&str] = &[
    "istio-locality",
    "topology.istio.io/network",
    "topology.istio.io/cluster",
    "topology.istio.io/subzone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "security.istio.io/tlsMode",
    "gateway.networking.k8s.io/gateway-name",
];

/// By what the objects of a snapshot tell proxies apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    labels: BTreeSet<String>,
    metadata: BTreeSet<String>,
    has_node_local: bool,
    /// Addresses behind headless services.
    headless: BTreeSet<IpAddr>,
}

impl Traits {
    /// Those of some objects.
    pub(crate) fn new(store: &Store, mesh: &mesh::MeshConfig, services: &[std::sync::Arc<Service>]) -> Self {
        let mut traits = Self::default();
        traits.locality(mesh.locality_lb_setting.as_ref());
        traits.priorities(mesh.zone_aware_lb_setting.iter().flat_map(|setting| &setting.failover_priority));
        for (_, sidecar) in store.all::<Sidecar>() {
            let selector = sidecar.workload_selector.iter();
            traits.labels.extend(selector.flat_map(|selector| selector.labels.keys().cloned()));
        }
        for (_, filter) in store.all::<EnvoyFilter>() {
            let selector = filter.workload_selector.iter();
            traits.labels.extend(selector.flat_map(|selector| selector.labels.keys().cloned()));
            let matches = filter.config_patches.iter().filter_map(|patch| patch.r#match.as_ref());
            let proxies = matches.filter_map(|matching| matching.proxy.as_ref());
            traits.metadata.extend(proxies.flat_map(|proxy| proxy.metadata.keys().cloned()));
        }
        for (_, gateway) in store.all::<Gateway>() {
            traits.labels.extend(gateway.selector.keys().cloned());
        }
        for (_, telemetry) in store.all::<Telemetry>() {
            traits.selector(telemetry.selector.as_ref());
        }
        for (_, policy) in store.all::<AuthorizationPolicy>() {
            traits.selector(policy.selector.as_ref());
        }
        for (_, policy) in store.all::<RequestAuthentication>() {
            traits.selector(policy.selector.as_ref());
        }
        for (_, plugin) in store.all::<WasmPlugin>() {
            traits.selector(plugin.selector.as_ref());
        }
        for (_, extension) in store.all::<TrafficExtension>() {
            traits.selector(extension.selector.as_ref());
        }
        for (_, rule) in store.all::<DestinationRule>() {
            traits.selector(rule.workload_selector.as_ref());
            let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
            rule.traffic_policy.iter().chain(subsets).for_each(|policy| traits.policy(policy));
        }
        for (_, service) in store.all::<VirtualService>() {
            let http = service.http.iter().flat_map(|route| &route.r#match).map(|one| &one.source_labels);
            let tcp = service.tcp.iter().flat_map(|route| &route.r#match).map(|one| &one.source_labels);
            let tls = service.tls.iter().flat_map(|route| &route.r#match).map(|one| &one.source_labels);
            traits.labels.extend(http.chain(tcp).chain(tls).flat_map(|labels| labels.keys().cloned()));
        }
        traits.has_node_local = services.iter().any(|service| {
            service.is_node_local || service.traffic_distribution == TrafficDistribution::SameNode
        });
        traits.headless(services);
        traits
    }

    /// The same with the addresses behind headless services as they are now.
    pub(crate) fn headless(&mut self, services: &[std::sync::Arc<Service>]) {
        let headless = services.iter().filter(|service| service.is_headless);
        let endpoints = headless.flat_map(|service| service.endpoints.iter());
        self.headless = endpoints.filter_map(|endpoint| endpoint.address.parse().ok()).collect();
    }

    fn selector(&mut self, selector: Option<&proto::istio::r#type::v1beta1::WorkloadSelector>) {
        self.labels.extend(selector.iter().flat_map(|selector| selector.match_labels.keys().cloned()));
    }

    fn policy(&mut self, policy: &TrafficPolicy) {
        let ports = policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref());
        let balancers: Vec<_> = policy.load_balancer.iter().chain(ports).collect();
        for balancer in balancers {
            self.locality(balancer.locality_lb_setting.as_ref());
            self.priorities(
                balancer.zone_aware_lb_setting.iter().flat_map(|setting| &setting.failover_priority),
            );
        }
    }

    fn locality(&mut self, setting: Option<&LocalityLoadBalancerSetting>) {
        self.priorities(setting.iter().flat_map(|setting| &setting.failover_priority));
    }

    fn priorities<'a>(&mut self, priorities: impl Iterator<Item = &'a String>) {
        self.labels.extend(priorities.map(|key| key.split('=').next().unwrap_or_default().to_owned()));
    }
}

impl Class {
    /// The class of a proxy.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy, detail: Detail) -> Self {
        let traits = &snapshot.traits;
        let pod = proxy.ips.iter().find_map(|ip| snapshot.pod(*ip));
        let is_router = proxy.kind == ProxyKind::Router;
        let is_told = |key: &String| {
            traits.labels.contains(key)
                || PLACE_LABELS.contains(&key.as_str())
                || (detail == Detail::Workload || is_router) && !POD_LABELS.contains(&key.as_str())
        };
        let project = |labels: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let told = labels.iter().filter(|(key, _)| is_told(key));
            told.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        // The pod's node decides where a proxy is, before what the proxy says.
        let Locality { region, zone, sub_zone } = crate::place::locality(snapshot, proxy);
        Self {
            detail,
            is_router,
            ports: if is_router { workload_ports(snapshot, proxy) } else { BTreeMap::new() },
            udp_ports: if is_router && snapshot.settings.features.quic_listeners {
                udp_ports(snapshot, proxy)
            } else {
                BTreeSet::new()
            },
            is_proxyless: proxy.is_proxyless,
            namespace: proxy.namespace.clone(),
            domain: proxy.id.domain.clone(),
            cluster_id: proxy.cluster_id.clone(),
            mesh_id: proxy.mesh_id.clone(),
            network: [network(snapshot, proxy), proxy.network.clone()],
            istio_version: proxy.istio_version.clone(),
            interception: match proxy.interception {
                Interception::Redirect => 0,
                Interception::Tproxy => 1,
                Interception::None => 2,
            },
            locality: [region, zone, sub_zone],
            flags: [proxy.http10, proxy.dns_capture, pod.is_some(), proxy.has_own_statistics()],
            idle_timeout: proxy.idle_timeout.as_ref().map(ToString::to_string),
            traced_as: match detail {
                Detail::Client => Default::default(),
                Detail::Workload => {
                    let own = proxy.annotation(names::annotation::OTEL_SERVICE_NAME).unwrap_or_default();
                    [proxy.cluster.clone(), own.to_owned()]
                }
            },
            extensions: proxy.extensions.clone(),
            families: proxy.ips.iter().map(IpAddr::is_ipv4).collect(),
            labels: [project(&proxy.labels), pod.map(|pod| project(&pod.meta.labels)).unwrap_or_default()],
            metadata: metadata(&proxy.metadata, traits, detail),
            node_name: (traits.has_node_local || traits.labels.contains(names::label::HOSTNAME))
                .then(|| proxy.node_name.clone()),
            ips: if proxy.ips.iter().any(|ip| traits.headless.contains(ip)) {
                proxy.ips.clone()
            } else {
                Vec::new()
            },
        }
    }
}

/// The network a proxy is in: by its address and its pod's labels, else what it says.
fn network(snapshot: &Snapshot, proxy: &Proxy) -> String {
    let pod = snapshot.pod_of(proxy);
    let of_pod = pod.and_then(|pod| snapshot.networks.of(proxy.ips.first().copied(), &pod.meta.labels));
    of_pod.map_or_else(|| proxy.network.clone(), |network| network.to_owned())
}

/// The metadata that counts, in one form.
fn metadata(metadata: &Struct, traits: &Traits, detail: Detail) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &metadata.fields {
        let is_own = OWN_METADATA.contains(&name.as_str())
            || detail == Detail::Client && WORKLOAD_METADATA.contains(&name.as_str());
        if !is_own || traits.metadata.contains(name) {
            text(name, &mut out);
            write(value.kind.as_ref(), &mut out);
        }
    }
    out
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend(text.len().to_le_bytes());
    out.extend(text.as_bytes());
}

fn write(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None | Some(Value::NullValue(_)) => out.push(0),
        Some(Value::BoolValue(value)) => out.extend([1, u8::from(*value)]),
        Some(Value::NumberValue(value)) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        Some(Value::StringValue(value)) => {
            out.push(3);
            text(value, out);
        }
        Some(Value::ListValue(list)) => {
            out.push(4);
            out.extend(list.values.len().to_le_bytes());
            list.values.iter().for_each(|value| write(value.kind.as_ref(), out));
        }
        Some(Value::StructValue(fields)) => {
            out.push(5);
            out.extend(fields.fields.len().to_le_bytes());
            for (name, value) in &fields.fields {
                text(name, out);
                write(value.kind.as_ref(), out);
            }
        }
    }
}
