//! Services: names, ports and the endpoints behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::{self, TargetPort};
use config::{Meta, Store};
use mesh::MeshConfig;
use names::Hostname;

use super::endpoint::{self, Endpoint};
use super::visibility::Visibility;
use crate::protocol::Protocol;

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

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Where it is known from.
    pub registry: Registry,
    /// How clients come to an address.
    pub resolution: Resolution,
    /// Whether it is outside of the mesh.
    pub is_external: bool,
    /// Further names that its servers' certificates may bear.
    pub subject_alt_names: Vec<String>,
    /// When it was made, as in [`Meta`].
    pub created: Option<String>,
    /// Its full name.
    pub host: Hostname,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its addresses; none when it is headless.
    pub addresses: Vec<String>,
    /// Whether clients choose the endpoint by its address.
    pub is_headless: bool,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Names that stand for it (`ExternalName` services).
    pub aliases: Vec<Hostname>,
    /// Whether only endpoints on the client's node count.
    pub is_node_local: bool,
    /// Endpoints of all ports.
    pub endpoints: Vec<Endpoint>,
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
    /// The port of that number, of those that the mesh carries.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number && port.protocol != Protocol::Udp)
    }

    /// Endpoints of a port.
    pub fn endpoints_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.iter().filter(move |endpoint| endpoint.port_name == port.name)
    }
}

/// All services, the oldest first.
pub(super) fn build(
    store: &Store,
    mesh: &MeshConfig,
    domain: &str,
    context: &endpoint::Context<'_>,
) -> Vec<Arc<Service>> {
    let mut aliases: BTreeMap<Hostname, Vec<Hostname>> = BTreeMap::new();
    for (object, service) in store.all::<kube::Service>() {
        if service.service_type == "ExternalName" {
            let host = Hostname::of_service(&object.meta.name, &object.meta.namespace, domain);
            aliases.entry(Hostname::new(&service.external_name)).or_default().push(host);
        }
    }
    let mut endpoints = endpoint::by_service(context);
    let mut services = Vec::new();
    for (object, service) in store.by_age::<kube::Service>() {
        if service.service_type == "ExternalName" {
            continue;
        }
        let Meta { name, namespace, annotations, .. } = &object.meta;
        let host = Hostname::of_service(name, namespace, domain);
        let export_to: Vec<String> = annotations
            .get(names::annotation::EXPORT_TO)
            .map(|list| list.split(',').map(|item| item.trim().to_owned()).collect())
            .unwrap_or_default();
        let ports = ports(service);
        let mut own = endpoints.remove(&(namespace.clone(), name.clone())).unwrap_or_default();
        own.extend(endpoint::of_workload_entries(context, namespace, &service.selector, &ports));
        // Those that are not ready are kept by endpoints of their own only on request.
        own.retain(|endpoint| endpoint.is_ready || service.publish_not_ready_addresses);
        services.push(Arc::new(Service {
            registry: Registry::Kubernetes,
            resolution: if service.is_headless() { Resolution::Passthrough } else { Resolution::Endpoints },
            is_external: false,
            subject_alt_names: Vec::new(),
            created: object.meta.creation_timestamp.clone(),
            aliases: aliases.remove(&host).unwrap_or_default(),
            host,
            name: name.clone(),
            namespace: namespace.clone(),
            ports,
            addresses: service
                .addresses()
                .into_iter()
                .filter(|address| address.parse::<IpAddr>().is_ok())
                .map(str::to_owned)
                .collect(),
            is_headless: service.is_headless(),
            selector: service.selector.clone(),
            visibility: Visibility::new(&export_to, &mesh.default_service_export_to, namespace),
            is_node_local: service.internal_traffic_policy == "Local",
            endpoints: own,
        }));
    }
    services
}

/// The ports of a service; clusters are named by their number, so of each the
/// first counts. TCP and UDP may share one.
fn ports(service: &kube::Service) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in service.ports.iter().filter(|port| port.port > 0).map(port) {
        let is_udp = |port: &Port| port.protocol == Protocol::Udp;
        if !ports.iter().any(|known| known.number == port.number && is_udp(known) == is_udp(&port)) {
            ports.push(port);
        }
    }
    ports
}

fn port(port: &kube::ServicePort) -> Port {
    Port {
        name: port.name.clone(),
        number: port.port,
        target: port.target_port.clone().unwrap_or(TargetPort::Number(port.port)),
        protocol: Protocol::of_port(&port.name, &port.protocol, port.app_protocol.as_deref()),
    }
}
