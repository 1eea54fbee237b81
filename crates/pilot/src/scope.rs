//! What of the mesh one proxy sees, and which ports of its workload are served.

mod imports;
mod inbound;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Key;
use names::Hostname;
use proto::istio::networking::v1alpha3::ConnectionPoolSettings;

use crate::finding::{Notes, Topic};
use crate::proxy::{Proxy, ProxyKind};
use crate::snapshot::attach::Workload;
use crate::snapshot::authn::Modes;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::sidecar;
use crate::snapshot::{Port, Service, Snapshot};

pub(crate) use inbound::{Inbound, udp_ports, workload_ports};
pub(crate) use view::{Egress, View};

/// A proxy with what it sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a Proxy,
    pub(crate) view: &'a View,
    notes: Option<&'a Notes>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a Proxy, view: &'a View) -> Self {
        Self { snapshot, proxy, view, notes: None }
    }

    /// The same, with somebody who wants to know what is found.
    pub(crate) fn noting(self, notes: &'a Notes) -> Self {
        Self { notes: Some(notes), ..self }
    }

    /// Tells what is found, if somebody wants to know.
    pub(crate) fn note(
        self,
        topic: Topic,
        key: String,
        object: Option<Key>,
        message: impl FnOnce() -> String,
    ) {
        if let Some(notes) = self.notes {
            notes.add(topic, key, object, message);
        }
    }

    /// Services that the proxy's workload may call, those of one name put
    /// together, in the order in which they win conflicts.
    pub(crate) fn services(self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.view.services.iter()
    }

    /// The service of a name, if the proxy's workload may call it.
    pub(crate) fn service(self, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.view.service(host)
    }

    /// The first service that a name stands for (`ExternalName`), if the proxy's
    /// workload may call it.
    pub(crate) fn service_by_alias(self, alias: &Hostname) -> Option<&'a Arc<Service>> {
        self.view.service_by_alias(alias)
    }

    /// Whether connections to destinations that are not known are let through.
    pub(crate) fn allows_any_outbound(self) -> bool {
        self.view.allows_any_outbound
    }

    /// Cluster for destinations that are not known: the black hole, the
    /// original destination, or the Sidecar's egress proxy.
    pub(crate) fn unknown_destination(self) -> &'a str {
        &self.view.unknown_destination
    }

    /// Whether requests to hosts that are not known go where DNS says that the
    /// host is. Gateways have no such requests.
    pub(crate) fn resolves_unknown(self) -> bool {
        self.view.resolves_unknown && self.proxy.kind == ProxyKind::Sidecar
    }

    /// The DestinationRule that holds for the proxy.
    pub(crate) fn rule(self, service: &Service) -> Option<&'a Arc<Rule>> {
        let client = &self.proxy.namespace;
        self.snapshot.destination_rules.select(client, self.labels(), &service.host, &service.namespace)
    }

    /// The DestinationRule that holds for calls to the proxy's own workload:
    /// never one that selects clients.
    pub(crate) fn inbound_rule(self, service: &Service) -> Option<&'a Arc<Rule>> {
        self.snapshot.destination_rules.find(&self.proxy.namespace, &service.host, &service.namespace)
    }

    /// The Sidecar that holds for the proxy.
    pub(crate) fn sidecar(self) -> Option<&'a Arc<sidecar::Entry>> {
        self.view.sidecar.as_ref()
    }

    /// Ingress listeners of the Sidecar; none when services say what is served.
    pub(crate) fn ingress(self) -> &'a [sidecar::Ingress] {
        self.sidecar().map_or(&[], |sidecar| &sidecar.ingress)
    }

    /// Limits that the Sidecar sets for connections to a port of the workload.
    pub(crate) fn inbound_connection_pool(self, target: u16) -> Option<&'a ConnectionPoolSettings> {
        let sidecar = self.sidecar()?;
        let own = sidecar
            .ingress
            .iter()
            .find(|ingress| ingress.port.number == target && ingress.spec.connection_pool.is_some());
        own.and_then(|ingress| ingress.spec.connection_pool.as_ref())
            .or(sidecar.spec.inbound_connection_pool.as_ref())
    }

    /// Labels of the proxy's workload: the pod's, or what the proxy says of itself.
    pub(crate) fn labels(self) -> &'a BTreeMap<String, String> {
        labels(self.snapshot, self.proxy)
    }

    /// The proxy's workload, as objects select it.
    pub(crate) fn workload(self) -> Workload<'a> {
        Workload { namespace: &self.proxy.namespace, labels: self.labels() }
    }

    /// Modes of mutual TLS of the proxy's own ports.
    pub(crate) fn modes(self) -> Modes {
        self.snapshot.authn.modes(&self.proxy.namespace, self.labels())
    }

    /// Ports of the workload that are served: those of the Sidecar's ingress
    /// listeners, else those that services lead to, each once.
    pub(crate) fn inbound(self) -> Vec<Inbound<'a>> {
        inbound::ports(self)
    }

    /// The oldest service that leads to the workload, if the proxy may see it, and the
    /// first of its ports that does.
    pub(crate) fn own_service(self) -> Option<(&'a Arc<Service>, &'a Port)> {
        let (host, number) = inbound::first(self)?;
        let service = self.service(host)?;
        Some((service, service.port(number)?))
    }

    /// All services that lead to a port of the workload, the oldest first.
    pub(crate) fn services_of(self, target: u16) -> Vec<&'a Arc<Service>> {
        inbound::services_of(self, target)
    }
}

/// Labels of a proxy's workload.
pub(crate) fn labels<'a>(snapshot: &'a Snapshot, proxy: &'a Proxy) -> &'a BTreeMap<String, String> {
    let pod = proxy.ips.iter().find_map(|ip| snapshot.pod(*ip));
    pod.filter(|pod| pod.meta.namespace == proxy.namespace).map_or(&proxy.labels, |pod| &pod.meta.labels)
}

#[cfg(test)]
mod tests;
