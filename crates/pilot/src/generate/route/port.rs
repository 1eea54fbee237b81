//! The virtual hosts of one port of a way out: services with the routes of the
//! VirtualService that decides on each, and hosts that only a VirtualService knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use names::Hostname;

use super::default::Defaults;
use super::domains::{self, Domain};
use super::encoded::{Host, encoded};
use super::rule::{self, Context};
use crate::finding::Topic;
use crate::generate::filter::session;
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
    services: HashMap<&'a Hostname, &'a Arc<Service>>,
    /// Names with a wildcard.
    wildcards: Vec<&'a Hostname>,
    /// Names that stand for a service (`ExternalName`).
    aliases: HashMap<&'a Hostname, &'a Arc<Service>>,
    /// `None` for all.
    port: Option<u16>,
}

impl<'a> Registry<'a> {
    fn new(egress: &'a Egress, port: Option<u16>) -> Self {
        let has_port = |service: &&Arc<Service>| {
            port.is_none_or(|number| service.ports.iter().any(|port| port.number == number))
        };
        let services: HashMap<_, _> =
            egress.services.iter().filter(has_port).map(|service| (&service.host, service)).collect();
        let wildcards = services.keys().copied().filter(|host| host.is_wildcard()).collect();
        let mut named: Vec<_> =
            services.values().copied().filter(|service| !service.aliases.is_empty()).collect();
        named.sort_by(|a, b| a.host.cmp(&b.host));
        let aliases =
            named.into_iter().flat_map(|service| service.aliases.iter().map(move |alias| (alias, service)));
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
            let mut meant: Vec<_> =
                self.services.values().filter(|service| host.matches(&service.host)).collect();
            if meant.is_empty() {
                others.push(host);
            }
            meant.sort_by(|a, b| a.host.cmp(&b.host));
            for service in meant {
                let decides = egress.virtual_service(&service.host);
                if decides.is_some_and(|decides| Arc::ptr_eq(decides, entry)) {
                    services.push((*service).clone());
                }
            }
        }
        (services, others)
    }
}

/// A service or another host on a port, with its routes.
struct Item<'a> {
    port: u16,
    name: Name<'a>,
    /// Encoded.
    routes: Vec<Bytes>,
}

enum Name<'a> {
    Service(Arc<Service>),
    Other(&'a Hostname),
}

impl Item<'_> {
    fn host(&self) -> &Hostname {
        match &self.name {
            Name::Service(service) => &service.host,
            Name::Other(host) => host,
        }
    }
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
pub(super) fn virtual_hosts(scope: Scope<'_>, egress: &Egress, port: Option<u16>) -> Vec<Host> {
    let items = items(scope, egress, port);
    let mut writer = Writer::new(scope, port, &items);
    let mut hosts: Vec<Host> = items.iter().filter_map(|item| writer.host(item)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

fn items<'a>(scope: Scope<'a>, egress: &'a Egress, port: Option<u16>) -> Vec<Item<'a>> {
    let registry = Registry::new(egress, port);
    let mut items = Vec::with_capacity(egress.services.len());
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
        let routes: Vec<Bytes> = rule::routes(context).iter().map(encoded).collect();
        if routes.is_empty() {
            continue;
        }
        for (port, services) in by_port {
            let others = others.iter().copied().map(Name::Other);
            let names = others.chain(services.into_iter().map(Name::Service));
            items.extend(names.map(|name| Item { port, name, routes: routes.clone() }));
        }
    }
    let service = |item: &Item<'_>| match &item.name {
        Name::Service(service) => Some(service.host.clone()),
        Name::Other(_) => None,
    };
    let routed: HashSet<Hostname> = items.iter().filter_map(service).collect();
    let mut defaults = Defaults::new(scope);
    // In the order of the services, which decides who keeps a name that two have.
    for service in &egress.services {
        let is_named = registry.services.get(&service.host).is_some_and(|named| Arc::ptr_eq(named, service));
        if !is_named || routed.contains(&service.host) {
            continue;
        }
        for port in registry.ports(service) {
            let routes = vec![defaults.route(service, port.number)];
            items.push(Item { port: port.number, name: Name::Service(service.clone()), routes });
        }
    }
    if port.is_none() {
        // Names without a port go to the port of HTTP, so it comes first.
        items.sort_by_key(|item| (item.port != HTTP_PORT, item.port));
    }
    items
}

/// Writes virtual hosts, each name and each domain once: the first keeps it.
struct Writer<'a> {
    scope: Scope<'a>,
    port: Option<u16>,
    names: HashSet<String>,
    domains: HashSet<String>,
    /// Full names of services with their ports, which no short name of another takes.
    known: HashSet<(&'a str, Option<u16>)>,
    counts_attempts: bool,
}

impl<'a> Writer<'a> {
    fn new(scope: Scope<'a>, port: Option<u16>, items: &'a [Item<'_>]) -> Self {
        let mut known = HashSet::default();
        for item in items {
            if let Name::Service(service) = &item.name {
                known.insert((service.host.as_str(), None));
                known.insert((service.host.as_str(), Some(item.port)));
            }
        }
        Self {
            scope,
            port,
            names: HashSet::default(),
            domains: HashSet::default(),
            known,
            counts_attempts: http::proxy_headers::of(scope).has_attempt_count(),
        }
    }

    fn host(&mut self, item: &Item<'_>) -> Option<Host> {
        let name = domains::with_port(item.host().as_str(), item.port);
        if !self.names.insert(name.clone()) {
            self.conflict(&name, item);
            return None;
        }
        let all = match &item.name {
            Name::Service(service) => {
                let port = self.port.is_none().then_some(item.port);
                domains::of_service(self.scope, service, port)
            }
            Name::Other(host) => vec![Domain::full(domains::in_url(host.as_str()))],
        };
        let mut kept = Vec::with_capacity(all.len());
        let mut is_complete = true;
        for domain in all {
            if domain.is_short && self.is_known(&domain.text) {
                is_complete = false;
                continue;
            }
            // A name without a port means that of HTTP.
            let is_reached = self.port.is_some() || item.port == HTTP_PORT || domain.text.contains(':');
            let is_new = self.domains.insert(domain.text.to_ascii_lowercase());
            is_complete &= is_new || !is_reached;
            if is_new && is_reached {
                kept.push(domain.text);
            }
        }
        if !is_complete {
            self.conflict(&name, item);
        }
        let mut settings = BTreeMap::new();
        if let Name::Service(service) = &item.name {
            session::set(&mut settings, session::for_route(self.scope, service));
        }
        (!kept.is_empty()).then(|| Host {
            name,
            domains: kept,
            routes: item.routes.clone(),
            include_request_attempt_count: self.counts_attempts,
            typed_per_filter_config: settings,
        })
    }

    /// Tells that a host does not get all the names that it wants.
    fn conflict(&self, name: &str, item: &Item<'_>) {
        let (what, object) = match &item.name {
            Name::Service(service) => ("a service", Some(service.origin())),
            Name::Other(_) => ("a VirtualService", None),
        };
        self.scope.note(Topic::DuplicateDomain, name.to_owned(), object, || {
            format!(
                "names of virtual host {name}, of {what}, stand for another host already: it goes without them"
            )
        });
    }

    /// Whether a domain is the full name of a service.
    fn is_known(&self, domain: &str) -> bool {
        let with_port = domain.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        self.known.contains(&(domain, None))
            || with_port.is_some_and(|(host, port)| self.known.contains(&(host, Some(port))))
    }
}
