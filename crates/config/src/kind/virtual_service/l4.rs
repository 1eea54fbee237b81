//! Rules of TCP and TLS routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::istio::networking::v1alpha3::{RouteDestination, TcpRoute, TlsRoute, VirtualService};

use super::{destination, gateway_names, weighted};
use crate::validate::Checker;

pub(super) fn tcp(at: &str, route: &TcpRoute, checker: &mut Checker) {
    for (number, matcher) in route.r#match.iter().enumerate() {
        let at = format!("{at}.match[{number}]");
        common(&at, &matcher.destination_subnets, matcher.port, &matcher.source_labels, checker);
        gateway_names(&at, &matcher.gateways, checker);
        if !matcher.source_subnet.is_empty() {
            checker.warn(format!("{at}.sourceSubnet"), "has no effect: Istio does not read it either");
        }
    }
    destinations(&format!("{at}.route"), &route.route, checker);
}

pub(super) fn tls(at: &str, route: &TlsRoute, service: &VirtualService, checker: &mut Checker) {
    if route.r#match.is_empty() {
        checker.error(format!("{at}.match"), "is missing: a TLS route needs sniHosts to match");
    }
    for (number, matcher) in route.r#match.iter().enumerate() {
        let at = format!("{at}.match[{number}]");
        if matcher.sni_hosts.is_empty() {
            checker.error(format!("{at}.sniHosts"), "is missing: name at least one host");
        }
        for (index, host) in matcher.sni_hosts.iter().enumerate() {
            sni_host(&format!("{at}.sniHosts[{index}]"), host, &service.hosts, checker);
        }
        common(&at, &matcher.destination_subnets, matcher.port, &matcher.source_labels, checker);
        gateway_names(&at, &matcher.gateways, checker);
    }
    destinations(&format!("{at}.route"), &route.route, checker);
}

fn sni_host(at: &str, host: &str, hosts: &[String], checker: &mut Checker) {
    if host.parse::<IpAddr>().is_ok() {
        let message = format!("{host:?} is an address, which clients do not send as SNI: name a host");
        return checker.warn(at, message);
    }
    checker.host(at, host);
    let covers = |wide: &String| {
        let end = wide.strip_prefix('*');
        wide == host || end.is_some_and(|end| host.trim_start_matches('*').ends_with(end))
    };
    if !hosts.iter().any(covers) {
        checker.error(at, format!("{host:?} is none of hosts: add it there, or name one of them"));
    }
}

fn common(
    at: &str,
    subnets: &[String],
    port: u32,
    source_labels: &BTreeMap<String, String>,
    checker: &mut Checker,
) {
    for (index, subnet) in subnets.iter().enumerate() {
        if !is_subnet(subnet) {
            let message =
                format!("{subnet:?} is not a subnet: expected an address such as 10.0.0.1 or 10.0.0.0/8");
            checker.error(format!("{at}.destinationSubnets[{index}]"), message);
        }
    }
    if port != 0 {
        checker.port(&format!("{at}.port"), port);
    }
    for (key, value) in source_labels {
        checker.label(&format!("{at}.sourceLabels.{key}"), key, value);
    }
}

fn is_subnet(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most))
}

fn destinations(at: &str, routes: &[RouteDestination], checker: &mut Checker) {
    if routes.is_empty() {
        checker.error(at, "is missing: name at least one destination");
    }
    weighted(at, routes.iter().map(|route| route.weight), checker);
    for (index, route) in routes.iter().enumerate() {
        destination(&format!("{at}[{index}].destination"), route.destination.as_ref(), checker);
    }
}
