//! Rules of `VirtualService`. One route that Envoy does not understand makes it
//! refuse all routes of a port, so what it cannot take must not get through.

mod cors;
mod fault;
mod headers;
mod http;
mod l4;
mod matching;
mod overlap;
mod reach;
#[cfg(test)]
mod tests;

use proto::istio::networking::v1alpha3::{Destination, VirtualService};

use crate::validate::{Checker, is_dns_label, is_dns_subdomain};

pub(super) fn check(service: &VirtualService, checker: &mut Checker) {
    let is_delegate = service.hosts.is_empty() && service.gateways.is_empty();
    let has_routes = !(service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty());
    let for_mesh = service.gateways.is_empty() || service.gateways.iter().any(|name| name == "mesh");
    if service.hosts.is_empty() && !(is_delegate && has_delegate_form(service)) {
        checker.error("hosts", "is missing: name at least one host");
    }
    let mut before = overlap::Hosts::default();
    for (index, host) in service.hosts.iter().enumerate() {
        let field = format!("hosts[{index}]");
        if host.parse::<std::net::IpAddr>().is_err() {
            checker.host(&field, host);
        }
        if let Some(other) = before.add(host) {
            checker.error(&field, format!("{host:?} and {other:?} have hosts in common: name each once"));
        }
        if host == "*" && for_mesh {
            checker.error(field, "\"*\" is too much for the sidecars of the mesh: name hosts, or a gateway");
        }
    }
    gateway_names("", &service.gateways, checker);
    checker.export_to(&service.export_to);
    if !has_routes {
        checker.error("", "has no http, tcp or tls routes");
    }
    let place = http::Place { in_delegate: service.hosts.is_empty(), has_gateway: !for_mesh };
    for (index, route) in service.http.iter().enumerate() {
        http::check(&format!("http[{index}]"), route, place, checker);
    }
    for (index, route) in service.tcp.iter().enumerate() {
        l4::tcp(&format!("tcp[{index}]"), route, checker);
    }
    for (index, route) in service.tls.iter().enumerate() {
        l4::tls(&format!("tls[{index}]"), route, service, checker);
    }
    reach::check(service, checker);
}

/// Names of gateways: of the own namespace, or `NAMESPACE/NAME`.
fn gateway_names(at: &str, names: &[String], checker: &mut Checker) {
    let dot = if at.is_empty() { "" } else { "." };
    for (index, name) in names.iter().enumerate() {
        let field = format!("{at}{dot}gateways[{index}]");
        let is_name = match name.split_once('/') {
            Some((namespace, name)) => is_dns_label(namespace) && is_dns_label(name),
            None => is_dns_subdomain(name),
        };
        if !is_name {
            let message = format!("{name:?} is not a gateway: expected NAME, NAMESPACE/NAME or mesh");
            checker.error(field, message);
        } else if let Some((gateway, rest)) = name.split_once('.') {
            let namespace = rest.split('.').next().unwrap_or_default();
            checker.warn(field, format!("{name:?} is the old form: write {namespace}/{gateway}"));
        }
    }
}

/// A VirtualService that others delegate to has no hosts; only HTTP routes can be delegated.
fn has_delegate_form(service: &VirtualService) -> bool {
    !service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty()
}

fn weighted(at: &str, weights: impl Iterator<Item = i32>, checker: &mut Checker) {
    let (mut count, mut total) = (0, 0i64);
    for (index, weight) in weights.enumerate() {
        checker.not_negative(&format!("{at}[{index}].weight"), weight);
        count += 1;
        total += i64::from(weight);
    }
    if total > i64::from(u32::MAX) {
        checker.error(at, format!("the weights make {total} together, more than the {} allowed", u32::MAX));
    }
    if count > 1 && total == 0 {
        checker.error(at, "all weights are 0: give at least one destination a weight");
    }
}

fn destination(at: &str, destination: Option<&Destination>, checker: &mut Checker) {
    let Some(destination) = destination else {
        return checker.error(at, "is missing: name the destination's host");
    };
    if destination.host == "*" {
        let message = format!("{:?} is no destination: name a host", destination.host);
        return checker.error(format!("{at}.host"), message);
    }
    checker.host(&format!("{at}.host"), &destination.host);
    if !destination.subset.is_empty() {
        checker.subset(&format!("{at}.subset"), &destination.subset);
    }
    if let Some(port) = &destination.port {
        checker.port(&format!("{at}.port.number"), port.number);
    }
}
