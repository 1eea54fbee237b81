//! Addresses that listeners take, by the families of addresses that a proxy has.

use std::net::IpAddr;

use crate::proxy::Proxy;
use crate::scope::Scope;
use crate::snapshot::{Registry, Service};

const ANY: &str = "0.0.0.0";
const ANY6: &str = "::";

/// Whether the proxy has addresses of version 4, and of version 6.
fn families(proxy: &Proxy) -> (bool, bool) {
    (proxy.ips.iter().any(IpAddr::is_ipv4), proxy.ips.iter().any(IpAddr::is_ipv6))
}

/// Any address, the main family first.
pub(super) fn any(proxy: &Proxy) -> &'static [&'static str] {
    match families(proxy) {
        (true, true) => &[ANY, ANY6],
        (false, true) => &[ANY6],
        _ => &[ANY],
    }
}

/// Addresses of the host itself, the main family first.
pub(super) fn loopback(proxy: &Proxy) -> &'static [&'static str] {
    match families(proxy) {
        (true, true) => &["127.0.0.1", "::1"],
        (false, true) => &["::1"],
        _ => &["127.0.0.1"],
    }
}

/// The first address that other hosts may know; any if there is none.
pub(super) fn own(proxy: &Proxy) -> Vec<String> {
    let is_global = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_multicast()
                && !ip.is_link_local()
                && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local
        }
    };
    match proxy.ips.iter().find(is_global) {
        Some(ip) => vec![ip.to_string()],
        None => any(proxy).iter().map(|&ip| ip.to_owned()).collect(),
    }
}

/// The addresses that a service is reached by, each list a listener of its own,
/// the main one first. An empty list stands for a service without an address.
pub(super) fn of_service(scope: Scope<'_>, service: &Service) -> Vec<Vec<String>> {
    let mut addresses = service.addresses_for(scope.proxy);
    if addresses.is_empty() {
        // One of another family still tells it from other services.
        addresses.extend(service.addresses.first().cloned());
    }
    if service.registry == Registry::External && !service.addresses.is_empty() {
        return addresses.into_iter().map(|address| vec![address]).collect();
    }
    if scope.snapshot.settings.features.dual_stack {
        return vec![addresses];
    }
    // One family only, that of the first.
    let is_v6 = |address: &String| address.contains(':');
    let first = addresses.first().map(is_v6);
    vec![addresses.into_iter().filter(|address| Some(is_v6(address)) == first).collect()]
}

/// Where the listener of a service without an address stands.
pub(super) fn unspecified(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let all: &[&str] = match service.registry {
        Registry::External => any(scope.proxy),
        Registry::Kubernetes => &[ANY],
    };
    all.iter().map(|&ip| ip.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ips(ips: &[&str]) -> Proxy {
        let node = proto::envoy::config::core::v3::Node {
            id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".into(),
            ..Default::default()
        };
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Proxy { ips, ..Proxy::from_node(&node).unwrap() }
    }

    #[test]
    fn addresses_are_of_the_families_of_the_proxy() {
        assert_eq!(any(&with_ips(&["10.0.0.1"])), ["0.0.0.0"]);
        assert_eq!(any(&with_ips(&["fd00::1"])), ["::"]);
        assert_eq!(any(&with_ips(&["fd00::1", "10.0.0.1"])), ["0.0.0.0", "::"]);
        assert_eq!(loopback(&with_ips(&["fd00::1"])), ["::1"]);
    }

    #[test]
    fn its_own_address_is_one_that_others_may_know() {
        assert_eq!(own(&with_ips(&["127.0.0.1", "10.0.0.1"])), ["10.0.0.1"]);
        assert_eq!(own(&with_ips(&["fe80::1", "fd00::1"])), ["fd00::1"]);
        assert_eq!(own(&with_ips(&["127.0.0.1"])), ["0.0.0.0"]);
    }
}
