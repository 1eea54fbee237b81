//! The names of a host as requests of the proxy's workload may bear them.

use std::net::IpAddr;

use names::Hostname;

use crate::scope::Scope;
use crate::snapshot::{Registry, Resolution, Service};

/// A name of a host.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) text: String,
    /// Whether it is short for another.
    pub(super) is_short: bool,
}

impl Domain {
    /// One that is not short for another.
    pub(super) fn full(text: String) -> Self {
        Self { text, is_short: false }
    }
}

/// An address as it stands in URLs.
pub(super) fn in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// `HOST:PORT`.
pub(super) fn with_port(host: &str, port: u16) -> String {
    format!("{}:{port}", in_url(host))
}

/// The names of a service, in Istio's order; where requests name their port
/// themselves, each with that `port` too.
pub(super) fn of_service(scope: Scope<'_>, service: &Service, port: Option<u16>) -> Vec<Domain> {
    let mut domains = Vec::with_capacity(8);
    for host in std::iter::once(&service.host).chain(&service.aliases) {
        push(host.as_str(), port, |text| domains.push(Domain::full(text)));
        short(scope, host, port, |text| domains.push(Domain { text, is_short: true }));
    }
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        // Each workload has a name of its own below the service's.
        let below: Vec<String> = domains.iter().map(|domain| format!("*.{}", domain.text)).collect();
        domains.extend(below.into_iter().map(Domain::full));
    }
    for address in addresses(scope, service) {
        push(&address, port, |text| domains.push(Domain::full(text)));
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

fn push(host: &str, port: Option<u16>, mut add: impl FnMut(String)) {
    add(in_url(host));
    if let Some(port) = port {
        add(with_port(host, port));
    }
}

/// Other names of a host in the proxy's namespace: the absolute one, and shorter
/// ones of a service of Kubernetes.
fn short(scope: Scope<'_>, host: &Hostname, port: Option<u16>, mut add: impl FnMut(String)) {
    let host = host.as_str();
    if host.parse::<IpAddr>().is_err() {
        add(format!("{host}."));
    }
    if let Some(port) = port {
        add(format!("{host}.:{port}"));
    }
    let inside =
        host.strip_suffix(scope.snapshot.domain.as_str()).and_then(|host| host.strip_suffix(".svc."));
    let Some((name, namespace)) = inside.and_then(|inside| inside.split_once('.')) else { return };
    let (with_namespace, with_svc) = (format!("{name}.{namespace}"), format!("{name}.{namespace}.svc"));
    if namespace == scope.proxy.namespace {
        push(name, port, &mut add);
        push(&with_svc, port, &mut add);
        push(&with_namespace, port, &mut add);
    } else {
        push(&with_namespace, port, &mut add);
        push(&with_svc, port, &mut add);
    }
}
