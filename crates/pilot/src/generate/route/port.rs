//! The virtual hosts of one port of a way out: services with the routes of the
//! VirtualService that decides on each, and hosts that only a VirtualService knows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use names::Hostname;
use proto::envoy::config::route::v3::{Route, VirtualHost};

use super::default_route;
use super::domains::{self, Domains};
use super::rule::{self, Context};
use crate::generate::http;
use crate::protocol::Protocol;
use crate::scope::{Egress, Scope};
use crate::snapshot::service::AutoAddresses;
use crate::snapshot::virtual_service::{Entry, MESH_GATEWAY};
use crate::snapshot::{Port, Service};

/// Port of HTTP by default: hosts that are no services are routed there.
const HTTP_PORT: u16 = 80;

/// Services by name, and the ports that requests may come to.
struct Registry<'a> {
    services: BTreeMap<&'a Hostname, &'a Arc<Service>>,
    /// Names with a wildcard.
    wildcards: Vec<&'a Hostname>,
    /// Names that stand for a service (`ExternalName`).
    aliases: BTreeMap<&'a Hostname, &'a Arc<Service>>,
    /// `None` for all.
    port: Option<u16>,
}

impl<'a> Registry<'a> {
    fn new(egress: &'a Egress, port: Option<u16>) -> Self {
        let has_port = |service: &&Arc<Service>| {
            port.is_none_or(|number| service.ports.iter().any(|port| port.number == number))
        };
        let services: BTreeMap<_, _> =
            egress.services.iter().filter(has_port).map(|service| (&service.host, service)).collect();
        let wildcards = services.keys().copied().filter(|host| host.is_wildcard()).collect();
        let aliases =
            services.values().flat_map(|service| service.aliases.iter().map(move |alias| (alias, *service)));
        let aliases = aliases.collect();
        Self { services, wildcards, aliases, port }
    }

    /// Ports of a service that carry requests.
    fn ports<'b>(&self, service: &'b Service) -> impl Iterator<Item = &'b Port> + use<'b> {
        let wanted = self.port;
        let named =
            service.ports.iter().filter(move |port| wanted.is_none_or(|number| port.number == number));
        // TCP and UDP may share a number: the first one counts.
        let first = named.enumerate().filter(move |(index, _)| wanted.is_none() || *index == 0);
        first.map(|(_, port)| port).filter(|port| port.protocol.is_http() || port.protocol == Protocol::Auto)
    }

    /// Whether a VirtualService speaks of any of the services.
    fn is_known_to(&self, entry: &Entry) -> bool {
        entry.hosts.iter().any(|host| {
            if host.is_wildcard() {
                self.services.keys().any(|service| host.matches(service))
            } else {
                self.services.contains_key(host)
                    || self.aliases.contains_key(host)
                    || self.wildcards.iter().any(|wildcard| wildcard.matches(host))
            }
        })
    }

    /// The services that a VirtualService decides on, and its hosts that are none.
    fn split(&self, egress: &Egress, entry: &'a Arc<Entry>) -> (Vec<Arc<Service>>, Vec<&'a Hostname>) {
        let (mut services, mut others) = (Vec::new(), Vec::new());
        for host in entry.hosts.iter().filter(|host| !host.is_wildcard()) {
            match (self.services.get(host), self.aliases.get(host)) {
                (Some(service), _) => services.push((*service).clone()),
                (None, Some(service)) => services.push(by_alias(service, host)),
                (None, None) => others.push(host),
            }
        }
        for host in entry.hosts.iter().filter(|host| host.is_wildcard()) {
            let mut is_any = false;
            for (name, service) in self.services.iter().filter(|(name, _)| host.matches(name)) {
                is_any = true;
                let decides = egress.virtual_service(name);
                if decides.is_some_and(|decides| Arc::ptr_eq(decides, entry)) {
                    services.push((*service).clone());
                }
            }
            if !is_any {
                others.push(host);
            }
        }
        (services, others)
    }
}

/// Services and other hosts that share routes on a port.
struct Group<'a> {
    port: u16,
    services: Vec<Arc<Service>>,
    others: Vec<&'a Hostname>,
    routes: Vec<Route>,
}

/// A service as it is under another name, by which it has no address.
fn by_alias(service: &Service, alias: &Hostname) -> Arc<Service> {
    Arc::new(Service {
        host: alias.clone(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        auto_addresses: AutoAddresses::default(),
        ..service.clone()
    })
}

/// The virtual hosts of a port, by name; of all ports without one (HTTP proxy,
/// Unix socket).
pub(super) fn virtual_hosts(scope: Scope<'_>, egress: &Egress, port: Option<u16>) -> Vec<VirtualHost> {
    let groups = groups(scope, egress, port);
    let mut writer = Writer::new(scope, port, &groups);
    let mut hosts = Vec::new();
    for group in &groups {
        for host in &group.others {
            hosts.extend(writer.host(group, host, None).map(|made| (group.port, made)));
        }
        for service in &group.services {
            hosts.extend(writer.host(group, &service.host, Some(service)).map(|made| (group.port, made)));
        }
    }
    if port.is_none() {
        // A name without a port means that of HTTP.
        for (_, made) in hosts.iter_mut().filter(|(port, _)| *port != HTTP_PORT) {
            made.domains.retain(|domain| domain.contains(':'));
        }
    }
    let mut hosts: Vec<VirtualHost> =
        hosts.into_iter().map(|(_, made)| made).filter(|made| !made.domains.is_empty()).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

fn groups<'a>(scope: Scope<'a>, egress: &'a Egress, port: Option<u16>) -> Vec<Group<'a>> {
    let registry = Registry::new(egress, port);
    let mut groups = Vec::new();
    for entry in &egress.virtual_services {
        if port != Some(HTTP_PORT) && !registry.is_known_to(entry) {
            continue;
        }
        let (services, others) = registry.split(egress, entry);
        let mut by_port: BTreeMap<u16, Vec<Arc<Service>>> = BTreeMap::new();
        for service in services {
            for port in registry.ports(&service) {
                by_port.entry(port.number).or_default().push(service.clone());
            }
        }
        if by_port.is_empty() && port == Some(HTTP_PORT) {
            by_port.insert(HTTP_PORT, Vec::new());
        }
        if by_port.is_empty() {
            continue;
        }
        let context = Context { scope, entry, gateway: MESH_GATEWAY, port: port.unwrap_or(0), is_tls: false };
        let routes = rule::routes(context);
        if routes.is_empty() {
            continue;
        }
        for (port, services) in by_port {
            groups.push(Group { port, services, others: others.clone(), routes: routes.clone() });
        }
    }
    let routed: BTreeSet<&Hostname> =
        groups.iter().flat_map(|group| &group.services).map(|service| &service.host).collect();
    let mut default = Vec::new();
    // In the order of the services, which decides who keeps a name that two have.
    for service in &egress.services {
        let is_named = registry.services.get(&service.host).is_some_and(|named| Arc::ptr_eq(named, service));
        if !is_named || routed.contains(&service.host) {
            continue;
        }
        for port in registry.ports(service) {
            let routes = vec![default_route(scope, service, port.number)];
            default.push(Group {
                port: port.number,
                services: vec![service.clone()],
                others: Vec::new(),
                routes,
            });
        }
    }
    groups.extend(default);
    if port.is_none() {
        // Names without a port go to the port of HTTP, so it comes first.
        groups.sort_by_key(|group| (group.port != HTTP_PORT, group.port));
    }
    groups
}

/// Writes virtual hosts, each name and each domain once: the first keeps it.
struct Writer<'a> {
    scope: Scope<'a>,
    port: Option<u16>,
    names: HashSet<String>,
    domains: HashSet<String>,
    /// Full names of services, which no short name of another takes.
    known: HashSet<String>,
    counts_attempts: bool,
}

impl<'a> Writer<'a> {
    fn new(scope: Scope<'a>, port: Option<u16>, groups: &[Group<'_>]) -> Self {
        let mut known = HashSet::new();
        for group in groups {
            for service in &group.services {
                known.insert(service.host.to_string());
                known.insert(domains::with_port(service.host.as_str(), group.port));
            }
        }
        Self {
            scope,
            port,
            names: HashSet::new(),
            domains: HashSet::new(),
            known,
            counts_attempts: http::proxy_headers::of(scope).has_attempt_count(),
        }
    }

    fn host(&mut self, group: &Group<'_>, host: &Hostname, service: Option<&Service>) -> Option<VirtualHost> {
        let name = domains::with_port(host.as_str(), group.port);
        if !self.names.insert(name.clone()) {
            return None;
        }
        let Domains { mut all, short } = match service {
            Some(service) => {
                let port = self.port.is_none().then_some(group.port);
                domains::of_service(self.scope, service, port)
            }
            None => Domains { all: vec![domains::in_url(host.as_str())], short: Vec::new() },
        };
        all.retain(|domain| {
            let lower = domain.to_ascii_lowercase();
            let is_another = self.known.contains(domain) && short.contains(domain);
            !is_another && self.domains.insert(lower)
        });
        (!all.is_empty()).then(|| VirtualHost {
            name,
            domains: all,
            routes: group.routes.clone(),
            include_request_attempt_count: self.counts_attempts,
            ..VirtualHost::default()
        })
    }
}
