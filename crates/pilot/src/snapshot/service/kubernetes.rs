//! Services of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use config::Meta;
use config::kube::{self, TargetPort};
use names::{Hostname, annotation};

use super::{Context, Key, Port, Registry, Resolution, Service, is_ip, traffic_distribution};
use crate::protocol::Protocol;
use crate::snapshot::endpoint::{Endpoint, Endpoints, Instances, Selected, Slices, Traits};
use crate::snapshot::visibility::Visibility;

/// Endpoints of services of Kubernetes by their slices.
pub(super) fn slices(
    context: &Context<'_>,
    instances: &Instances,
    before: Option<(&Slices, &Instances)>,
) -> Slices {
    let Context { store, settings, authn, .. } = context;
    let traits = |namespace: &str, name: &str| {
        let (object, service) = store.get::<kube::Service>(namespace, name)?;
        Some(Traits {
            has_sessions: settings.features.session_labels.has_sessions(&object.meta.labels),
            is_dual_stack: settings.features.dual_stack && service.cluster_ips.len() > 1,
        })
    };
    Slices::build(store, instances, authn, traits, before)
}

/// Services of Kubernetes but for `ExternalName`; endpoints that are not in
/// slices are added to `endpoints`.
pub(super) fn services(
    context: &Context<'_>,
    instances: &Instances,
    endpoints: &mut BTreeMap<Key, Endpoints>,
) -> Vec<Service> {
    let Context { store, settings, domain, .. } = context;
    let mut services = Vec::new();
    for (object, service) in store.all::<kube::Service>() {
        if service.service_type == "ExternalName" {
            continue;
        }
        let Meta { name, namespace, annotations, labels, .. } = &object.meta;
        let host = Hostname::of_service(name, namespace, domain);
        let ports = ports(service);
        let mut own = Endpoints::default();
        if !service.is_headless() && !service.selector.is_empty() {
            for selected in instances.entries(namespace, &service.selector) {
                add_entry(context, &mut own, selected, &ports);
            }
        }
        if !own.is_empty() {
            endpoints.insert((namespace.clone(), host.clone()), own);
        }
        let export_to: Vec<String> = annotations
            .get(annotation::EXPORT_TO)
            .filter(|list| !list.is_empty())
            .map(|list| list.split(',').map(|item| item.trim().to_owned()).collect())
            .unwrap_or_default();
        services.push(Service {
            registry: Registry::Kubernetes,
            resolution: if service.is_headless() { Resolution::Passthrough } else { Resolution::Endpoints },
            is_external: false,
            subject_alt_names: accounts(annotations, namespace, settings.mesh.trust_domain()),
            created: object.meta.creation_timestamp.clone(),
            aliases: Vec::new(),
            host,
            name: name.clone(),
            object_name: name.clone(),
            namespace: namespace.clone(),
            labels: labels.clone(),
            ports,
            addresses: service
                .addresses()
                .into_iter()
                .filter(|text| is_ip(text))
                .map(str::to_owned)
                .collect(),
            auto_addresses: super::AutoAddresses::default(),
            is_headless: service.is_headless(),
            selector: service.selector.clone(),
            visibility: Visibility::new(&export_to, &settings.mesh.default_service_export_to, namespace),
            is_node_local: service.internal_traffic_policy == "Local",
            publishes_not_ready: service.publish_not_ready_addresses,
            traffic_distribution: traffic_distribution(
                store,
                &service.traffic_distribution,
                annotations,
                namespace,
            ),
            races_connections: false,
            endpoints: Default::default(),
        });
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
        protocol: Protocol::of_port(port.port, &port.name, &port.protocol, port.app_protocol.as_deref()),
    }
}

/// Adds a WorkloadEntry that the service selects: at the port of its own that is
/// named as the service's, else at the target port.
fn add_entry(context: &Context<'_>, own: &mut Endpoints, selected: &Selected, ports: &[Port]) {
    // Host names and sockets are for ServiceEntries only, as in Istio.
    if !selected.address.is_empty() && !is_ip(&selected.address) {
        return;
    }
    for port in ports {
        let named = |name: &str| selected.instance.ports.get(name).copied();
        let number = match &port.target {
            TargetPort::Number(0) => Some(named(&port.name).unwrap_or(port.number)),
            TargetPort::Number(number) => Some(named(&port.name).unwrap_or(*number)),
            TargetPort::Name(name) => named(name),
        };
        let Some(number) = number else { continue };
        let mut made = Endpoint::new(context.authn, &selected.address, number, &selected.instance);
        made.weight = selected.weight.max(1);
        own.push(&port.name, made);
    }
}

/// Identities that annotations add to those of the endpoints.
fn accounts(annotations: &BTreeMap<String, String>, namespace: &str, trust_domain: &str) -> Vec<String> {
    let list = |key: &str| {
        let text = annotations.get(key).map(String::as_str).unwrap_or_default();
        text.split(',').map(str::trim).filter(|name| !name.is_empty())
    };
    let own = list(annotation::KUBERNETES_SERVICE_ACCOUNTS);
    list(annotation::CANONICAL_SERVICE_ACCOUNTS)
        .map(str::to_owned)
        .chain(own.map(|name| format!("spiffe://{trust_domain}/ns/{namespace}/sa/{name}")))
        .collect()
}

/// Tells each service the names of the `ExternalName` services that stand for
/// it, perhaps through others; a ring of them stands for nothing.
pub(super) fn set_aliases(context: &Context<'_>, services: &mut [Service]) {
    let mut targets: BTreeMap<Hostname, (Hostname, &str)> = BTreeMap::new();
    for (object, service) in context.store.all::<kube::Service>() {
        if service.service_type == "ExternalName" && !service.external_name.is_empty() {
            let host = Hostname::of_service(&object.meta.name, &object.meta.namespace, context.domain);
            targets.insert(host, (Hostname::new(&service.external_name), &object.meta.namespace));
        }
    }
    let mut aliases: BTreeMap<&Hostname, Vec<(&str, &Hostname)>> = BTreeMap::new();
    for (alias, (first, namespace)) in &targets {
        let mut seen = BTreeSet::from([alias]);
        let mut target = first;
        while let Some((next, _)) = targets.get(target) {
            if !seen.insert(target) {
                break;
            }
            target = next;
        }
        if !targets.contains_key(target) {
            aliases.entry(target).or_default().push((namespace, alias));
        }
    }
    for service in services {
        if let Some(list) = aliases.get(&service.host) {
            let mut list = list.clone();
            list.sort_unstable();
            service.aliases = list.into_iter().map(|(_, alias)| alias.clone()).collect();
        }
    }
}
