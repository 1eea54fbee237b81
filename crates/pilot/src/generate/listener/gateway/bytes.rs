//! Chains for bytes: TCP, and TLS that ends at the gateway or goes through it.

use std::collections::BTreeSet;

use names::{ClusterName, Hostname};
use proto::envoy::config::listener::v3::Filter;
use proto::istio::networking::v1alpha3::server_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{L4MatchAttributes, RouteDestination};

use super::tls;
use crate::generate::filter::{Direction, Place};
use crate::generate::hash;
use crate::generate::listener::draft::Draft;
use crate::generate::listener::{chain, forward};
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::Service;
use crate::snapshot::gateway::merge::Bound;
use crate::snapshot::virtual_service::Entry;

/// What proxies of the mesh say inside TLS.
const MESH: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Names that routes have taken, each with the address it is taken at.
pub(super) type Names = BTreeSet<(String, String)>;

/// The chains of one server.
pub(super) fn drafts(scope: Scope<'_>, bound: Bound<'_>, names: &mut Names) -> Vec<Draft> {
    let server = bound.server;
    match server.mode() {
        Some(TlsMode::AutoPassthrough) => by_cluster_name(scope, &server.server_names()),
        Some(TlsMode::Passthrough) => by_server_name(scope, bound, names),
        _ => {
            let names = if server.tls.is_some() { server.server_names() } else { Vec::new() };
            let socket = tls::socket(scope, server);
            let made = filters(scope, bound);
            made.map(|filters| Draft { names, socket, filters, ..Draft::default() }).into_iter().collect()
        }
    }
}

/// VirtualServices of a server, those that come first winning.
fn entries<'a>(scope: Scope<'a>, bound: Bound<'a>) -> impl Iterator<Item = &'a Entry> {
    let entries = scope.snapshot.virtual_services.for_gateway(&scope.proxy.namespace, &bound.gateway.id);
    entries.map(|entry| &**entry).filter(move |entry| {
        let mut hosts = bound.server.hosts_for(&entry.namespace).map(Hostname::new);
        hosts.any(|host| entry.hosts.iter().any(|own| host.matches(own)))
    })
}

/// The filters of the first TCP route that fits; `None` when none does.
fn filters(scope: Scope<'_>, bound: Bound<'_>) -> Option<Vec<Filter>> {
    let fits = |matches: &[L4MatchAttributes]| {
        matches.is_empty() || matches.iter().any(|one| applies(one.port, &one.gateways, bound))
    };
    entries(scope, bound).find_map(|entry| {
        let mut routes = entry.spec.tcp.iter().filter(|route| fits(&route.r#match));
        routes.find_map(|route| to(scope, bound, entry, &route.route))
    })
}

/// Whether a route holds at a server. Other conditions are not for gateways.
fn applies(port: u32, gateways: &[String], bound: Bound<'_>) -> bool {
    (port == 0 || port == u32::from(bound.server.port))
        && (gateways.is_empty() || gateways.contains(&bound.gateway.id))
}

/// One chain for each match of a TLS route.
fn by_server_name(scope: Scope<'_>, bound: Bound<'_>, taken: &mut Names) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for entry in entries(scope, bound) {
        for route in &entry.spec.tls {
            let Some(filters) = to(scope, bound, entry, &route.route) else { continue };
            for one in route.r#match.iter().filter(|one| applies(one.port, &one.gateways, bound)) {
                let at = |name: &String| (name.clone(), bound.server.bind.clone());
                if one.sni_hosts.iter().any(|name| taken.contains(&at(name))) {
                    continue;
                }
                taken.extend(one.sni_hosts.iter().map(at));
                let names = one.sni_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
                drafts.push(Draft { names, filters: filters.clone(), ..Draft::default() });
            }
        }
    }
    drafts
}

/// Filters that forward to destinations; `None` when there is none.
fn to(scope: Scope<'_>, bound: Bound<'_>, entry: &Entry, routes: &[RouteDestination]) -> Option<Vec<Filter>> {
    let server = bound.server;
    let place = Place::new(Direction::Gateway, server.protocol, server.port, None);
    forward::to(scope, place, entry, routes)
}

/// One chain for each cluster of the services that `hosts` cover: connections
/// of proxies of the mesh name it. No policy looks into them.
fn by_cluster_name(scope: Scope<'_>, hosts: &[String]) -> Vec<Draft> {
    let hosts: Vec<Hostname> = hosts.iter().map(|host| Hostname::new(host)).collect();
    let covered = |host: &Hostname| hosts.iter().any(|own| own.covers(host));
    let mut drafts = Vec::new();
    for service in scope.services().filter(|service| !service.is_external && covered(&service.host)) {
        let rule = scope.rule(service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str());
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            for subset in &subsets {
                let name = ClusterName::outbound(port.number, subset, &service.host).sni();
                let place = Place::new(Direction::Gateway, port.protocol, port.number, None);
                let filters = through(scope, place, service, subset, &name);
                drafts.push(Draft { names: vec![name], protocols: MESH, filters, ..Draft::default() });
            }
        }
    }
    drafts
}

fn through(
    scope: Scope<'_>,
    place: Place<'_>,
    service: &Service,
    subset: &str,
    cluster: &str,
) -> Vec<Filter> {
    let mut proxy = chain::proxy(scope, cluster);
    hash::tcp(scope, service, subset, &mut proxy);
    // Tunnels are for connections whose end is known.
    proxy.tunneling_config = None;
    chain::unguarded(scope, place, proxy, cluster)
}
