//! Routes of a gateway. Unlike at sidecars, the routes of all VirtualServices
//! with a host are put together.

use std::collections::BTreeMap;

use names::Hostname;
use proto::Any;
use proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::rule;
use crate::generate::filter::session;
use crate::generate::gateway::quic::{Quic, advertisement};
use crate::generate::gateway::servers;
use crate::generate::http;
use crate::scope::Scope;
use crate::snapshot::gateway::Server;
use crate::snapshot::gateway::merge::Bound;
use crate::snapshot::virtual_service::Entry;

/// What a host has: routes by the number of the list they are in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Host {
    /// Name of the virtual host.
    name: String,
    /// Lists of routes, in order.
    lists: Vec<usize>,
    /// Whether plaintext is sent away to HTTPS.
    redirects: bool,
    /// How its sessions are told apart, where a service bears its name.
    session: Option<Any>,
}

/// Lists of routes, each made once: of one VirtualService at one gateway.
#[derive(Debug, Default)]
struct Lists<'a> {
    made: Vec<Vec<Route>>,
    by_entry: BTreeMap<(&'a str, &'a str, &'a str), usize>,
    /// Whether clients are told of HTTP/3.
    has_quic: bool,
}

impl<'a> Lists<'a> {
    /// The list of a VirtualService at a server; `None` where none of its rules applies.
    fn of(&mut self, scope: Scope<'a>, bound: Bound<'a>, entry: &'a Entry) -> Option<usize> {
        let Bound { gateway, server } = bound;
        let key = (gateway.id.as_str(), entry.namespace.as_str(), entry.name.as_str());
        if let Some(known) = self.by_entry.get(&key) {
            return Some(*known);
        }
        let (port, is_tls) = (server.port, server.tls.is_some());
        let mut routes = rule::routes(rule::Context { scope, entry, gateway: &gateway.id, port, is_tls });
        if self.has_quic {
            for route in &mut routes {
                route.response_headers_to_add.push(advertisement(port));
            }
        }
        if routes.is_empty() {
            return None;
        }
        self.made.push(routes);
        self.by_entry.insert(key, self.made.len() - 1);
        Some(self.made.len() - 1)
    }
}

/// Route configurations of a gateway whose name is wanted.
pub(in crate::generate) fn gateway(
    scope: Scope<'_>,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Vec<RouteConfiguration> {
    let servers = servers(scope);
    let quic = Quic::of(scope);
    let names = servers.by_routes.iter().filter(|(name, _)| is_wanted(name));
    names.map(|(name, bound)| configuration(scope, name, bound, &quic)).collect()
}

/// The routes that some servers share.
fn configuration(scope: Scope<'_>, name: &str, servers: &[Bound<'_>], quic: &Quic) -> RouteConfiguration {
    let has_quic = servers.iter().any(|bound| quic.takes(bound.server));
    let mut lists = Lists { has_quic, ..Lists::default() };
    let mut hosts: BTreeMap<Hostname, Host> = BTreeMap::new();
    for bound in servers {
        let Bound { gateway, server } = *bound;
        for entry in scope.snapshot.virtual_services.for_gateway(&scope.proxy.namespace, &gateway.id) {
            let shared = shared(server, entry);
            if shared.is_empty() {
                continue;
            }
            let Some(list) = lists.of(scope, *bound, entry) else { continue };
            for host in shared {
                let host = hosts.entry(host.clone()).or_insert_with(|| Host {
                    session: of_service(scope, entry, &host),
                    ..new(&host, server)
                });
                host.lists.push(list);
                host.redirects |= server.redirects();
            }
        }
        // A host without any route is sent away to HTTPS all the same.
        if server.redirects() {
            for host in server.hosts.iter().map(|host| Hostname::new(host)) {
                hosts.entry(host.clone()).or_insert_with(|| new(&host, server)).redirects = true;
            }
        }
    }
    let mut virtual_hosts = if hosts.is_empty() {
        // Requests meet no route, which is answered by 404.
        let port = servers.first().map_or(0, |bound| bound.server.port);
        vec![VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".into()],
            ..VirtualHost::default()
        }]
    } else {
        collapsed(hosts)
            .into_iter()
            .map(|(domains, host)| virtual_host(scope, domains, host, &lists))
            .collect()
    };
    virtual_hosts.sort_by(|one, other| one.name.cmp(&other.name));
    super::configuration(name, virtual_hosts)
}

fn new(host: &Hostname, server: &Server) -> Host {
    // As an address with its port is written, should it be one.
    let host = if host.as_str().contains(':') { format!("[{host}]") } else { host.to_string() };
    Host { name: format!("{host}:{}", server.port), ..Host::default() }
}

/// The sessions of the service that bears a host's name, if a VirtualService leads there.
fn of_service(scope: Scope<'_>, entry: &Entry, host: &Hostname) -> Option<Any> {
    if !scope.snapshot.settings.features.persistent_sessions {
        return None;
    }
    let targets = entry.spec.http.iter().flat_map(|rule| &rule.route);
    let mut names = targets.filter_map(|target| target.destination.as_ref());
    let leads_there = names.any(|destination| Hostname::new(&destination.host) == *host);
    let service = scope.service(host).filter(|_| leads_there)?;
    session::for_route(scope, service)
}

/// Hosts that a server and a VirtualService have in common: of two names, one
/// of which covers the other, the narrow one.
fn shared(server: &Server, entry: &Entry) -> Vec<Hostname> {
    let mut shared: Vec<Hostname> = Vec::new();
    for of_server in server.hosts_for(&entry.namespace).map(Hostname::new) {
        for of_entry in &entry.hosts {
            let host = if of_entry.covers(&of_server) {
                &of_server
            } else if of_server.covers(of_entry) {
                of_entry
            } else {
                continue;
            };
            if !shared.contains(host) {
                shared.push(host.clone());
            }
        }
    }
    shared
}

/// Hosts with the same routes put together: each list of routes is sent once
/// only. The most specific host comes first.
fn collapsed(hosts: BTreeMap<Hostname, Host>) -> Vec<(Vec<String>, Host)> {
    let mut hosts: Vec<(Hostname, Host)> = hosts.into_iter().collect();
    hosts.sort_by_key(|(host, _)| {
        (host.is_wildcard(), std::cmp::Reverse(host.as_str().len()), host.as_str().to_owned())
    });
    let mut collapsed: Vec<(Vec<String>, Host)> = Vec::new();
    // The newest of those with the same routes takes more.
    let mut newest: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for (name, host) in hosts {
        let known = newest.get(&host.lists).and_then(|index| collapsed.get_mut(*index));
        let is_alike = |known: &Host| known.redirects == host.redirects && known.session == host.session;
        match known.filter(|(_, known)| is_alike(known)) {
            Some((domains, _)) => domains.push(name.to_string()),
            None => {
                newest.insert(host.lists.clone(), collapsed.len());
                collapsed.push((vec![name.to_string()], host));
            }
        }
    }
    collapsed
}

fn virtual_host(scope: Scope<'_>, domains: Vec<String>, host: Host, lists: &Lists<'_>) -> VirtualHost {
    let all = host.lists.iter().filter_map(|list| lists.made.get(*list)).flatten().cloned();
    // What takes everything must not hide the routes of another VirtualService.
    let (last, mut routes): (Vec<Route>, Vec<Route>) = all.partition(rule::is_everything);
    routes.extend(last);
    let requirement = if host.redirects { TlsRequirementType::All } else { TlsRequirementType::None };
    let mut settings = BTreeMap::new();
    session::set(&mut settings, host.session);
    VirtualHost {
        name: host.name,
        domains,
        routes,
        require_tls: requirement.into(),
        include_request_attempt_count: http::proxy_headers::of(scope).has_attempt_count(),
        typed_per_filter_config: settings,
        ..VirtualHost::default()
    }
}

#[cfg(test)]
mod tests;
