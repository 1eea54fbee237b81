//! Short names in a VirtualService, written in full.

use std::net::IpAddr;

use names::Hostname;
use proto::istio::networking::v1alpha3::{Destination, HttpRoute, VirtualService};

use super::MESH_GATEWAY;

/// The same with full names of hosts, gateways and destinations.
pub(super) fn resolved(spec: &VirtualService, namespace: &str, domain: &str) -> VirtualService {
    let mut spec = spec.clone();
    spec.hosts.iter_mut().for_each(|name| *name = host(name, namespace, domain));
    gateways(&mut spec.gateways, namespace);
    spec.http.iter_mut().for_each(|rule| http(rule, namespace, domain));
    for rule in &mut spec.tcp {
        rule.r#match.iter_mut().for_each(|matcher| gateways(&mut matcher.gateways, namespace));
        let targets = rule.route.iter_mut().filter_map(|target| target.destination.as_mut());
        targets.for_each(|target| destination(target, namespace, domain));
    }
    for rule in &mut spec.tls {
        rule.r#match.iter_mut().for_each(|matcher| gateways(&mut matcher.gateways, namespace));
        let targets = rule.route.iter_mut().filter_map(|target| target.destination.as_mut());
        targets.for_each(|target| destination(target, namespace, domain));
    }
    spec
}

fn http(rule: &mut HttpRoute, namespace: &str, domain: &str) {
    rule.r#match.iter_mut().for_each(|matcher| gateways(&mut matcher.gateways, namespace));
    let targets = rule.route.iter_mut().filter_map(|target| target.destination.as_mut());
    let mirrors = rule.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut());
    targets.chain(&mut rule.mirror).chain(mirrors).for_each(|target| destination(target, namespace, domain));
}

fn destination(destination: &mut Destination, namespace: &str, domain: &str) {
    destination.host = host(&destination.host, namespace, domain);
}

fn host(name: &str, namespace: &str, domain: &str) -> String {
    if name.is_empty() || name.parse::<IpAddr>().is_ok() {
        return name.to_owned();
    }
    Hostname::resolve(name, namespace, domain).as_str().to_owned()
}

fn gateways(names: &mut [String], namespace: &str) {
    for name in names.iter_mut().filter(|name| *name != MESH_GATEWAY) {
        *name = gateway(name, namespace);
    }
}

/// `NAMESPACE/NAME` of a gateway. Besides the names of today there is an old
/// form, the host name of a service: `NAME.NAMESPACE.svc.cluster.local`.
pub(super) fn gateway(name: &str, namespace: &str) -> String {
    if let Some((of, name)) = name.split_once('/') {
        return format!("{}/{name}", if of == "." { namespace } else { of });
    }
    match name.split_once('.') {
        None => format!("{namespace}/{name}"),
        Some((name, rest)) => {
            let of = rest.split_once('.').map_or(rest, |(of, _)| of);
            format!("{of}/{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_named_in_four_ways() {
        for (name, want) in [
            ("gw", "own/gw"),
            ("./gw", "own/gw"),
            ("other/gw", "other/gw"),
            ("gw.other", "other/gw"),
            ("gw.other.svc.cluster.local", "other/gw"),
        ] {
            assert_eq!(gateway(name, "own"), want);
        }
    }

    #[test]
    fn short_hosts_are_of_the_own_namespace() {
        for (name, want) in [
            ("a", "a.own.svc.cluster.local"),
            ("A.b", "a.b"),
            ("*", "*"),
            ("::1", "::1"),
            ("10.0.0.1", "10.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(host(name, "own", "cluster.local"), want);
        }
    }
}
