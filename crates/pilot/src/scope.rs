//! What of the mesh one proxy sees, and which services it serves.

use std::sync::Arc;

use config::kube::TargetPort;
use names::Hostname;

use crate::proxy::Proxy;
use crate::snapshot::authn::Modes;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::virtual_service::Entry;
use crate::snapshot::{Port, Service, Snapshot};

/// A way out of a proxy: an egress listener of its Sidecar, or the only one of
/// a proxy without.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    /// Its own port; `None` for the way that holds for every port.
    pub(crate) port: Option<u16>,
    /// Services that may be called this way, the oldest first.
    pub(crate) services: Vec<Arc<Service>>,
    /// VirtualServices that hold there, the oldest first.
    pub(crate) virtual_services: Vec<Arc<Entry>>,
}

/// What a proxy may call, and by which rules: the same for all proxies that
/// the same policies select.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Ways out; those with a port of their own come first.
    pub(crate) egress: Vec<Egress>,
    /// Services of all ways out, the oldest first.
    services: Vec<Arc<Service>>,
    allows_any_outbound: bool,
}

impl View {
    /// What a proxy sees of a snapshot.
    pub(crate) fn new(snapshot: &Snapshot, proxy: &Proxy) -> Self {
        let visible = |service: &&Arc<Service>| service.visibility.includes(&proxy.namespace);
        let services: Vec<Arc<Service>> = snapshot.services.iter().filter(visible).cloned().collect();
        let virtual_services = snapshot.virtual_services.visible(&proxy.namespace).cloned().collect();
        Self {
            egress: vec![Egress { port: None, services: services.clone(), virtual_services }],
            services,
            allows_any_outbound: snapshot.mesh.allows_any_outbound(),
        }
    }
}

/// A proxy with what it sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a Proxy,
    pub(crate) view: &'a View,
}

/// A port of the proxy's own workload that a service leads to.
#[derive(Clone, Debug)]
pub(crate) struct Inbound<'a> {
    pub(crate) service: &'a Arc<Service>,
    pub(crate) port: &'a Port,
    /// Port of the workload.
    pub(crate) target: u16,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a Proxy, view: &'a View) -> Self {
        Self { snapshot, proxy, view }
    }

    /// Services that the proxy's workload may call, the oldest first.
    pub(crate) fn services(self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.view.services.iter()
    }

    /// The VirtualService that decides on a host.
    pub(crate) fn virtual_service(self, host: &Hostname) -> Option<&'a Arc<Entry>> {
        self.snapshot.virtual_services.find(&self.proxy.namespace, host)
    }

    /// Whether connections to destinations that are not known are let through.
    pub(crate) fn allows_any_outbound(self) -> bool {
        self.view.allows_any_outbound
    }

    /// The DestinationRule that holds for the proxy.
    pub(crate) fn rule(self, service: &Service) -> Option<&'a Arc<Rule>> {
        self.snapshot.destination_rules.find(&self.proxy.namespace, &service.host, &service.namespace)
    }

    /// Labels of the proxy's workload: the pod's, or what the proxy says of itself.
    pub(crate) fn labels(self) -> &'a std::collections::BTreeMap<String, String> {
        let pod = self.proxy.ips.iter().find_map(|ip| self.snapshot.pod(*ip));
        pod.filter(|pod| pod.meta.namespace == self.proxy.namespace)
            .map_or(&self.proxy.labels, |pod| &pod.meta.labels)
    }

    /// Modes of mutual TLS of the proxy's own ports.
    pub(crate) fn modes(self) -> Modes {
        self.snapshot.authn.modes(&self.proxy.namespace, self.labels())
    }

    /// Ports of the workload that services lead to, one service each: the
    /// oldest, then the first by name.
    pub(crate) fn inbound(self) -> Vec<Inbound<'a>> {
        let labels = self.labels();
        let mut found: Vec<Inbound<'a>> = Vec::new();
        for service in &self.snapshot.services {
            let selects = !service.selector.is_empty()
                && service.namespace == self.proxy.namespace
                && config::matches(&service.selector, labels);
            if !selects {
                continue;
            }
            for port in &service.ports {
                let Some(target) = self.target(port) else { continue };
                if port.protocol != crate::protocol::Protocol::Udp
                    && !found.iter().any(|known| known.target == target)
                {
                    found.push(Inbound { service, port, target });
                }
            }
        }
        found.sort_by_key(|inbound| inbound.target);
        found
    }

    /// All services that lead to a port of the workload.
    pub(crate) fn services_of(self, target: u16) -> Vec<&'a Arc<Service>> {
        let labels = self.labels();
        let selects = |service: &&Arc<Service>| {
            !service.selector.is_empty()
                && service.namespace == self.proxy.namespace
                && config::matches(&service.selector, labels)
        };
        let leads =
            |service: &&Arc<Service>| service.ports.iter().any(|port| self.target(port) == Some(target));
        self.snapshot.services.iter().filter(selects).filter(leads).collect()
    }

    fn target(self, port: &Port) -> Option<u16> {
        match &port.target {
            TargetPort::Number(0) => Some(port.number),
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => {
                self.proxy.ips.iter().find_map(|ip| self.snapshot.pod(*ip)?.pod.port_by_name(name))
            }
        }
    }
}
