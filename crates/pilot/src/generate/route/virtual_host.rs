//! Virtual hosts: which names mean which service, and whose rules hold for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use names::Hostname;
use proto::envoy::config::route::v3::{Route, VirtualHost};
use proto::istio::networking::v1alpha3::HttpRoute;

use super::action::{self, Context};
use super::{default_route, matching};
use crate::scope::Scope;
use crate::snapshot::Service;
use crate::snapshot::virtual_service::Entry;

/// Port of HTTP by default: hosts that are no services are routed there.
const HTTP_PORT: u16 = 80;

/// The virtual hosts of all services of a port.
pub(super) fn of_port(scope: Scope<'_>, port: u16, services: &[&Arc<Service>]) -> Vec<VirtualHost> {
    let mut hosts: Vec<VirtualHost> =
        services.iter().flat_map(|service| of_service(scope, service, port)).collect();
    let known: BTreeSet<&Hostname> = services.iter().map(|service| &service.host).collect();
    for entry in scope.view.egress.iter().flat_map(|egress| &egress.virtual_services) {
        for host in &entry.hosts {
            let is_service = scope.snapshot.service(host).is_some();
            // A host that is no service lives on the port of HTTP; a service
            // without this port shares the routes of a rule that also names one with it.
            let shares = is_service && entry.hosts.iter().any(|other| known.contains(other));
            if known.contains(host) || !(shares || (!is_service && port == HTTP_PORT)) {
                continue;
            }
            let decides = scope.virtual_service(host);
            if !decides.is_some_and(|decides| Arc::ptr_eq(decides, entry)) {
                continue;
            }
            let routes = of_entry(scope, entry, host, port);
            if !routes.is_empty() {
                hosts.push(virtual_host(host, port, vec![host.as_str().into()], routes));
            }
        }
    }
    unique_domains(&mut hosts);
    hosts
}

/// The virtual host of a service's port.
pub(super) fn of_service(scope: Scope<'_>, service: &Service, port: u16) -> Vec<VirtualHost> {
    let entry = scope.virtual_service(&service.host);
    let mut routes = entry.map(|entry| of_entry(scope, entry, &service.host, port)).unwrap_or_default();
    if entry.is_none_or(|entry| entry.spec.http.is_empty()) {
        routes = vec![default_route(scope, &service.host, port)];
    }
    vec![virtual_host(&service.host, port, domains(scope, service), routes)]
}

fn virtual_host(host: &Hostname, port: u16, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: format!("{host}:{port}"),
        domains,
        routes,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// The routes of a VirtualService for one host.
fn of_entry(scope: Scope<'_>, entry: &Entry, host: &Hostname, port: u16) -> Vec<Route> {
    let context = Context { scope, entry, host, port };
    let mut routes = Vec::new();
    for rule in entry.spec.http.iter().filter(|rule| action::can_act(rule)) {
        let mut is_last = false;
        for matcher in selected(scope, rule, port) {
            routes.push(action::route(context, rule, matcher));
            is_last |= matcher.is_none_or(matching::is_everything);
        }
        // Nothing gets past a rule that takes everything.
        if is_last {
            break;
        }
    }
    routes
}

type Matcher<'a> = Option<&'a proto::istio::networking::v1alpha3::HttpMatchRequest>;

/// The matches of a rule that can come true at this proxy and port; one `None`
/// for a rule without any.
fn selected<'a>(scope: Scope<'_>, rule: &'a HttpRoute, port: u16) -> Vec<Matcher<'a>> {
    if rule.r#match.is_empty() {
        return vec![None];
    }
    let fits = |matcher: &&'a proto::istio::networking::v1alpha3::HttpMatchRequest| {
        matching::applies(matcher, scope, port)
    };
    rule.r#match.iter().filter(fits).map(Some).collect()
}

/// The names of a service as clients of the proxy's namespace may write them.
fn domains(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mut domains = Vec::new();
    forms(scope, &service.host, &service.name, &service.namespace, &mut domains);
    for alias in &service.aliases {
        let mut parts = alias.as_str().splitn(3, '.');
        if let (Some(name), Some(namespace)) = (parts.next(), parts.next()) {
            forms(scope, alias, name, namespace, &mut domains);
        }
    }
    if service.is_headless {
        // Each workload has a name of its own below the service's.
        domains.extend(domains.clone().into_iter().map(|domain| format!("*.{domain}")));
    }
    domains.extend(
        service
            .addresses
            .iter()
            .map(|address| if address.contains(':') { format!("[{address}]") } else { address.clone() }),
    );
    domains
}

fn forms(scope: Scope<'_>, host: &Hostname, name: &str, namespace: &str, domains: &mut Vec<String>) {
    domains.push(host.to_string());
    domains.push(format!("{host}."));
    let suffix = format!(".{namespace}.svc.{}", scope.snapshot.domain);
    if !host.as_str().ends_with(&suffix) {
        return;
    }
    let (with_svc, with_namespace) = (format!("{name}.{namespace}.svc"), format!("{name}.{namespace}"));
    if scope.proxy.namespace == namespace {
        domains.extend([name.to_owned(), with_svc, with_namespace]);
    } else {
        domains.extend([with_namespace, with_svc]);
    }
}

/// A name may stand once in a route configuration; the first keeps it.
fn unique_domains(hosts: &mut Vec<VirtualHost>) {
    let mut seen = BTreeSet::new();
    for host in hosts.iter_mut() {
        host.domains.retain(|domain| seen.insert(domain.clone()));
    }
    hosts.retain(|host| !host.domains.is_empty());
}
