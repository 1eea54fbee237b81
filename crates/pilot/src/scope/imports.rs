//! Which services and VirtualServices an egress listener lets through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use names::Hostname;

use super::view::Egress;
use crate::protocol::Protocol;
use crate::snapshot::sidecar::{self, Import, Namespaces};
use crate::snapshot::virtual_service::Entry;
use crate::snapshot::{Registry, Service, Snapshot};

/// The hosts of one namespace that a listener names.
#[derive(Debug, Default)]
struct Hosts {
    exact: BTreeSet<Hostname>,
    wildcards: Vec<Hostname>,
    excluded: Vec<Hostname>,
}

impl Hosts {
    /// Whether a service of that name may be called.
    fn has_service(&self, host: &Hostname) -> bool {
        self.exact.contains(host) || self.wildcards.iter().any(|own| own.covers(host))
    }

    /// Whether a VirtualService with that host counts; either may be a wildcard.
    fn has_virtual_service(&self, host: &Hostname) -> bool {
        self.exact.contains(host)
            || self.wildcards.iter().any(|own| own.matches(host))
            || (host.is_wildcard() && self.exact.iter().any(|own| host.matches(own)))
    }

    fn excludes(&self, host: &Hostname) -> bool {
        self.excluded.iter().any(|own| own.covers(host))
    }
}

/// The hosts of a listener by namespace, `None` for all of them.
struct Imports(BTreeMap<Option<String>, Hosts>);

impl Imports {
    fn new(imports: &[Import], client: &str, domain: &str) -> Self {
        let mut all: BTreeMap<Option<String>, Hosts> = BTreeMap::new();
        for import in imports {
            let namespace = match &import.namespace {
                Namespaces::All => None,
                Namespaces::Own => Some(client.to_owned()),
                Namespaces::One(name) => Some(name.clone()),
            };
            // A short name is the service of that namespace.
            let host = match &namespace {
                Some(namespace) => Hostname::resolve(import.host.as_str(), namespace, domain),
                None => import.host.clone(),
            };
            let hosts = all.entry(namespace).or_default();
            if import.is_excluded {
                hosts.excluded.push(host);
            } else if host.is_wildcard() {
                hosts.wildcards.push(host);
            } else {
                hosts.exact.insert(host);
            }
        }
        Self(all)
    }

    /// Whether every host is an exact name in a namespace that is named.
    fn are_exact(&self) -> bool {
        self.0.iter().all(|(namespace, hosts)| {
            hosts.wildcards.is_empty() && (namespace.is_some() || hosts.exact.is_empty())
        })
    }

    /// The parts that may speak for an object of a namespace.
    fn of(&self, namespace: &str) -> [Option<&Hosts>; 2] {
        [self.0.get(&Some(namespace.to_owned())), self.0.get(&None)]
    }

    fn virtual_service(&self, entry: &Entry) -> bool {
        let parts = self.of(&entry.namespace);
        let parts = || parts.iter().flatten();
        entry.hosts.iter().any(|host| {
            parts().any(|hosts| hosts.has_virtual_service(host)) && !parts().any(|hosts| hosts.excludes(host))
        })
    }
}

/// The only way out of a proxy without a Sidecar.
pub(super) fn everything(snapshot: &Snapshot, client: &str) -> Egress {
    let services = distinct(snapshot, visible(snapshot, client), client);
    Egress::new(services, virtual_services(snapshot, client, |_| true))
}

/// An egress listener of a Sidecar.
pub(super) fn listener(snapshot: &Snapshot, client: &str, listener: &sidecar::Egress) -> Egress {
    let imports = Imports::new(&listener.imports, client, &snapshot.domain);
    // A proxy of requests takes them for every port.
    let own_port = listener.port.as_ref().filter(|port| port.protocol != Protocol::HttpProxy);
    let own_port = own_port.map(|port| port.number).filter(|number| *number != 0);
    let candidates =
        if imports.are_exact() { exact(snapshot, client, &imports) } else { visible(snapshot, client) };
    let mut services = Vec::new();
    for service in candidates {
        let parts = imports.of(&service.namespace);
        if parts.iter().flatten().any(|hosts| hosts.excludes(&service.host)) {
            continue;
        }
        let trimmed = parts.iter().flatten().find_map(|hosts| {
            let service = Some(&service).filter(|service| hosts.has_service(&service.host))?;
            let service = match own_port {
                Some(number) => with_ports(service, |port| port == number)?,
                None => service.clone(),
            };
            Some(with_aliases(service, hosts))
        });
        services.extend(trimmed);
    }
    let services = distinct(snapshot, services, client);
    let virtual_services = virtual_services(snapshot, client, |entry| imports.virtual_service(entry));
    let mut egress = Egress::new(services, virtual_services);
    egress.port.clone_from(&listener.port);
    egress.bind.clone_from(&listener.bind);
    egress.binds_to_port = listener.binds_to_port;
    egress
}

/// Services that a namespace sees: those that are for it in particular first,
/// each part with the oldest first.
fn visible(snapshot: &Snapshot, client: &str) -> Vec<Arc<Service>> {
    let seen = |service: &&Arc<Service>| service.visibility.includes(client);
    let (public, own): (Vec<_>, Vec<_>) =
        snapshot.services.iter().filter(seen).cloned().partition(|service| service.visibility.is_public());
    own.into_iter().chain(public).collect()
}

/// The same of exact names only, found without a look at all others.
fn exact(snapshot: &Snapshot, client: &str, imports: &Imports) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    for (namespace, hosts) in &imports.0 {
        let Some(namespace) = namespace else { continue };
        for host in &hosts.exact {
            let named = snapshot.directory.named(host).iter();
            let seen = |service: &&Arc<Service>| {
                service.namespace == *namespace && service.visibility.includes(client)
            };
            services.extend(named.filter(seen).cloned());
        }
    }
    services.sort_by(|a, b| {
        let key = |service: &Service| service.visibility.is_public();
        key(a)
            .cmp(&key(b))
            .then_with(|| (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace)))
    });
    services
}

/// VirtualServices that a namespace sees and that fit, in their order of precedence.
fn virtual_services(snapshot: &Snapshot, client: &str, fits: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
    snapshot.virtual_services.visible(client).filter(|entry| fits(entry)).cloned().collect()
}

/// Of services of one name in several namespaces those of one namespace: the
/// client's own, else that of Kubernetes, else that of the first.
fn distinct(snapshot: &Snapshot, mut services: Vec<Arc<Service>>, client: &str) -> Vec<Arc<Service>> {
    if !snapshot.directory.has_namesakes() {
        return services;
    }
    let mut chosen: HashMap<Hostname, (&str, bool)> = HashMap::new();
    for service in &services {
        let is_kubernetes = service.registry == Registry::Kubernetes;
        let own = (service.namespace.as_str(), is_kubernetes);
        let best = chosen.entry(service.host.clone()).or_insert(own);
        let is_better = !best.1 && is_kubernetes && best.0 != client;
        if service.namespace == client || is_better {
            *best = own;
        }
    }
    let keep: Vec<bool> = services
        .iter()
        .map(|service| {
            chosen.get(&service.host).is_some_and(|(namespace, _)| *namespace == service.namespace)
        })
        .collect();
    let mut keep = keep.into_iter();
    services.retain(|_| keep.next().unwrap_or(true));
    services
}

/// A service with some of its ports only; `None` when none is left.
pub(super) fn with_ports(service: &Arc<Service>, fits: impl Fn(u16) -> bool) -> Option<Arc<Service>> {
    let count = service.ports.iter().filter(|port| fits(port.number)).count();
    if count == 0 {
        return None;
    }
    if count == service.ports.len() {
        return Some(service.clone());
    }
    let ports = service.ports.iter().filter(|port| fits(port.number)).cloned().collect();
    Some(Arc::new(Service { ports, ..(**service).clone() }))
}

/// A service with those other names only that the listener names too.
fn with_aliases(service: Arc<Service>, hosts: &Hosts) -> Arc<Service> {
    if service.aliases.iter().all(|alias| hosts.has_service(alias)) {
        return service;
    }
    let aliases = service.aliases.iter().filter(|alias| hosts.has_service(alias)).cloned().collect();
    Arc::new(Service { aliases, ..(*service).clone() })
}
