//! Ports of a proxy's own workload, and the services that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::TargetPort;
use names::Hostname;
use prost_types::value::Kind as Value;

use super::Scope;
use crate::finding::Topic;
use crate::protocol::Protocol;
use crate::proxy::{Interception, Proxy};
use crate::snapshot::{Port, Registry, Service, Snapshot, sidecar};

/// A port of the proxy's own workload that is served.
#[derive(Clone, Debug)]
pub(crate) struct Inbound<'a> {
    /// The service that leads to it: the oldest, then the first by name. Always
    /// there without an ingress listener.
    pub(crate) service: Option<&'a Arc<Service>>,
    /// The service's port, or that of the ingress listener.
    pub(crate) port: &'a Port,
    /// Port of the workload; with an ingress listener the one it listens on.
    pub(crate) target: u16,
    /// The Sidecar's ingress listener that declares it.
    pub(crate) ingress: Option<&'a sidecar::Ingress>,
}

impl Inbound<'_> {
    /// The host it is served for, as traces and statistics name it: the
    /// service's, or the Sidecar's name and namespace for an ingress listener.
    pub(crate) fn host(&self, scope: Scope<'_>) -> Hostname {
        match (self.ingress, scope.sidecar(), self.service) {
            (Some(_), Some(sidecar), _) => {
                Hostname::new(&format!("{}.{}", sidecar.name, scope.proxy.namespace))
            }
            (_, _, Some(service)) => service.host.clone(),
            _ => Hostname::new(""),
        }
    }
}

/// A port of a service with the port of the workload that it leads to.
type Target<'a> = (&'a Arc<Service>, &'a Port, u16);

pub(super) fn ports(scope: Scope<'_>) -> Vec<Inbound<'_>> {
    let mut found: Vec<Inbound<'_>> = Vec::new();
    let targets = targets(scope.snapshot, scope.proxy);
    if !scope.ingress().is_empty() {
        for ingress in scope.ingress() {
            let (port, target) = (&ingress.port, ingress.port.number);
            let service =
                targets.iter().find(|(_, _, number)| *number == target).map(|(service, ..)| *service);
            if !found.iter().any(|known| known.target == target) {
                found.push(Inbound { service, port, target, ingress: Some(ingress) });
            }
        }
    } else if scope.proxy.interception != Interception::None {
        // Without interception the workload itself listens there.
        for (service, port, target) in targets {
            match found.iter().find(|known| known.target == target) {
                None => found.push(Inbound { service: Some(service), port, target, ingress: None }),
                Some(known) => conflict(scope, known, service, port),
            }
        }
    }
    found.sort_by_key(|inbound| inbound.target);
    found
}

/// Tells that a port of the workload is served as another service says; one
/// that says the same loses nothing.
fn conflict(scope: Scope<'_>, known: &Inbound<'_>, service: &Service, port: &Port) {
    let Some(first) = known.service.filter(|first| first.host != service.host) else { return };
    if known.port.protocol == port.protocol {
        return;
    }
    scope.note(Topic::InboundListener, scope.proxy.name(), Some(service.origin()), || {
        format!(
            "port {} of the workload is served as {:?}, as {} says, not as {:?}, as {} says: let both ports of the \
             services have one protocol",
            known.target, known.port.protocol, first.host, port.protocol, service.host
        )
    });
}

pub(super) fn services_of(scope: Scope<'_>, target: u16) -> Vec<&Arc<Service>> {
    let mut services: Vec<&Arc<Service>> = Vec::new();
    for (service, _, number) in targets(scope.snapshot, scope.proxy) {
        if number == target && !services.iter().any(|known| Arc::ptr_eq(known, service)) {
            services.push(service);
        }
    }
    services
}

/// The oldest service that leads to the workload, and the number of its port.
pub(super) fn first<'a>(scope: Scope<'a>) -> Option<(&'a Hostname, u16)> {
    let (service, port, _) = targets(scope.snapshot, scope.proxy).into_iter().next()?;
    Some((&service.host, port.number))
}

/// Ports of services with the workload's port that the oldest service leads to
/// from there, as far as services let gateways in (Knative's label keeps them out).
pub(crate) fn workload_ports(snapshot: &Snapshot, proxy: &Proxy) -> BTreeMap<u16, u16> {
    let mut ports = BTreeMap::new();
    for (service, port, target) in targets(snapshot, proxy) {
        if !service.labels.contains_key(names::label::NO_GATEWAY_PORTS) {
            ports.entry(port.number).or_insert(target);
        }
    }
    ports
}

/// Ports of services with the proxy's workload that take UDP, which the mesh leaves alone.
pub(crate) fn udp_ports(snapshot: &Snapshot, proxy: &Proxy) -> BTreeSet<u16> {
    let is_udp = |port: &Port| port.protocol == Protocol::Udp;
    all_targets(snapshot, proxy)
        .iter()
        .filter(|(_, port, _)| is_udp(port))
        .map(|(_, port, _)| port.number)
        .collect()
}

/// Ports of the workload that services lead to, the oldest service first.
fn targets<'a>(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Vec<Target<'a>> {
    let mut targets = all_targets(snapshot, proxy);
    targets.retain(|(_, port, _)| port.protocol != Protocol::Udp);
    targets
}

/// The same with those of UDP.
fn all_targets<'a>(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Vec<Target<'a>> {
    let of_namespace = snapshot.directory.of_namespace(&proxy.namespace);
    let labels = super::labels(snapshot, proxy);
    let selects = |service: &&Arc<Service>| {
        service.registry == Registry::Kubernetes
            && !service.selector.is_empty()
            && config::matches(&service.selector, labels)
    };
    let mut targets: Vec<Target<'_>> = Vec::new();
    for service in of_namespace.iter().filter(selects) {
        for port in &service.ports {
            targets.extend(target(snapshot, proxy, service, port).map(|target| (service, port, target)));
        }
    }
    // What no selector finds may be listed by its address.
    let is_selected = !targets.is_empty();
    for service in of_namespace {
        let is_listed = service.registry == Registry::External || !is_selected;
        if is_listed && !selects(&service) {
            targets.extend(listed(proxy, service));
        }
    }
    targets.sort_by(|(a, ..), (b, ..)| (&a.created, &a.host).cmp(&(&b.created, &b.host)));
    targets
}

/// Ports of a service that have the proxy's workload among their endpoints.
fn listed<'a>(proxy: &'a Proxy, service: &'a Arc<Service>) -> impl Iterator<Item = Target<'a>> {
    let is_own = |address: &str| address.parse().is_ok_and(|ip: IpAddr| proxy.ips.contains(&ip));
    service.ports.iter().filter_map(move |port| {
        let own = service.endpoints_of(port).find(|endpoint| is_own(&endpoint.address))?;
        Some((service, port, own.port))
    })
}

/// The workload's port behind a port of a service that selects it.
fn target(snapshot: &Snapshot, proxy: &Proxy, service: &Arc<Service>, port: &Port) -> Option<u16> {
    let pod = proxy.ips.iter().find_map(|ip| snapshot.pod(*ip));
    if pod.is_none()
        && let Some((.., number)) = listed(proxy, service).find(|(_, own, _)| own.number == port.number)
    {
        return Some(number);
    }
    match &port.target {
        TargetPort::Number(0) => Some(port.number),
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => match pod {
            Some(pod) => pod.pod.port_by_name(name),
            None => port_of_metadata(proxy, name),
        },
    }
}

/// A port of the pod by its name, as the proxy says of itself (`POD_PORTS`).
fn port_of_metadata(proxy: &Proxy, name: &str) -> Option<u16> {
    let Some(Value::ListValue(ports)) = &proxy.metadata.fields.get("POD_PORTS")?.kind else { return None };
    ports.values.iter().find_map(|port| {
        let Some(Value::StructValue(port)) = &port.kind else { return None };
        let has_name = matches!(
            port.fields.get("name").and_then(|value| value.kind.as_ref()),
            Some(Value::StringValue(own)) if own == name
        );
        match port.fields.get("containerPort")?.kind {
            // A port number is small and whole.
            Some(Value::NumberValue(number)) if has_name && (1.0..65536.0).contains(&number) => {
                format!("{number}").parse().ok()
            }
            _ => None,
        }
    })
}
