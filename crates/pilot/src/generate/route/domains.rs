//! The names of a host as requests of the proxy's workload may bear them.

use std::net::IpAddr;

use names::Hostname;

use crate::scope::Scope;
use crate::snapshot::{Registry, Resolution, Service};

/// Names of a service.
#[derive(Debug, Default)]
pub(super) struct Domains {
    /// All, in Istio's order.
    pub(super) all: Vec<String>,
    /// Those among them that are short for another.
    pub(super) short: Vec<String>,
}

/// An address as it stands in URLs.
pub(super) fn in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// `HOST:PORT`.
pub(super) fn with_port(host: &str, port: u16) -> String {
    format!("{}:{port}", in_url(host))
}

/// The names of a service; where requests name their port themselves, each with
/// that `port` too.
pub(super) fn of_service(scope: Scope<'_>, service: &Service, port: Option<u16>) -> Domains {
    let mut domains = Domains::default();
    for host in std::iter::once(&service.host).chain(&service.aliases) {
        push(&mut domains.all, host.as_str(), port);
        let short = short(scope, host, port);
        domains.all.extend_from_slice(&short);
        domains.short.extend(short);
    }
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        // Each workload has a name of its own below the service's.
        let below: Vec<String> = domains.all.iter().map(|domain| format!("*.{domain}")).collect();
        domains.all.extend(below);
    }
    for address in addresses(scope, service) {
        push(&mut domains.all, &address, port);
    }
    domains
}

/// Addresses that requests may name. Of several of a ServiceEntry Istio takes the
/// last one, of those that were allocated the first.
fn addresses(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mut all = service.addresses_for(scope.proxy);
    if service.registry == Registry::External && !service.addresses.is_empty() {
        return all.pop().into_iter().collect();
    }
    if service.registry == Registry::External {
        all.truncate(1);
    }
    all
}

fn push(domains: &mut Vec<String>, host: &str, port: Option<u16>) {
    domains.push(in_url(host));
    domains.extend(port.map(|port| with_port(host, port)));
}

/// Other names of a host in the proxy's namespace: the absolute one, and shorter
/// ones of a service of Kubernetes.
fn short(scope: Scope<'_>, host: &Hostname, port: Option<u16>) -> Vec<String> {
    let mut names = Vec::new();
    let host = host.as_str();
    if host.parse::<IpAddr>().is_err() {
        names.push(format!("{host}."));
    }
    names.extend(port.map(|port| format!("{host}.:{port}")));
    let inside =
        host.strip_suffix(scope.snapshot.domain.as_str()).and_then(|host| host.strip_suffix(".svc."));
    let Some((name, namespace)) = inside.and_then(|inside| inside.split_once('.')) else { return names };
    let (with_namespace, with_svc) = (format!("{name}.{namespace}"), format!("{name}.{namespace}.svc"));
    if namespace == scope.proxy.namespace {
        push(&mut names, name, port);
        push(&mut names, &with_svc, port);
        push(&mut names, &with_namespace, port);
    } else {
        push(&mut names, &with_namespace, port);
        push(&mut names, &with_svc, port);
    }
    names
}
