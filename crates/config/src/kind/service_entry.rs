//! Rules of `ServiceEntry`.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use proto::istio::networking::v1alpha3::service_entry::{Location, Resolution};
use proto::istio::networking::v1alpha3::{ServiceEntry as Spec, ServicePort};

use super::workload_entry::{self, Form};
use crate::kube::ServiceEntry;
use crate::validate::{Checker, is_dns_label};

/// Words in `protocol`, in any case; empty is told from the traffic.
const PROTOCOLS: [&str; 12] = [
    "HTTP",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "HTTP_PROXY",
    "HTTPS",
    "TLS",
    "TCP",
    "MONGO",
    "REDIS",
    "MYSQL",
    "UDP",
];

pub(super) fn check(entry: &ServiceEntry, checker: &mut Checker) {
    checker.within("spec", |checker| spec(&entry.spec, checker));
}

fn spec(entry: &Spec, checker: &mut Checker) {
    let resolution = Resolution::try_from(entry.resolution);
    if resolution.is_err() {
        checker
            .error("resolution", format!("{} is unknown: expected NONE, STATIC, DNS, …", entry.resolution));
    }
    if Location::try_from(entry.location).is_err() {
        let message = format!("{} is unknown: expected MESH_EXTERNAL or MESH_INTERNAL", entry.location);
        checker.error("location", message);
    }
    let resolution = resolution.unwrap_or_default();
    hosts(entry, resolution, checker);
    addresses(entry, resolution, checker);
    ports(entry, resolution, checker);
    endpoints(entry, resolution, checker);
    selector(entry, resolution, checker);
    export_to(entry, checker);
}

fn hosts(entry: &Spec, resolution: Resolution, checker: &mut Checker) {
    if entry.hosts.is_empty() {
        checker.error("hosts", "is missing: name at least one host");
    }
    let is_dynamic = resolution == Resolution::DynamicDns;
    let names_itself =
        matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) && entry.endpoints.is_empty();
    let mut known = HashSet::new();
    for (index, host) in entry.hosts.iter().enumerate() {
        let is_known = !known.insert(host);
        let at = format!("hosts[{index}]");
        if host == "*" {
            checker.error(at, "\"*\" would be every host: name one, or a domain such as *.example.com");
            continue;
        }
        checker.host(&at, host);
        if is_dynamic && !host.starts_with('*') {
            let message = format!("{host:?} is one host: resolution DYNAMIC_DNS is for wildcards, use DNS");
            checker.error(at, message);
        } else if names_itself && host.starts_with('*') {
            let message = format!(
                "{host:?} has no address: give endpoints, or use resolution NONE or DYNAMIC_DNS for a wildcard"
            );
            checker.error(at, message);
        } else if !is_dynamic && host.starts_with('*') && !host.starts_with("*.") {
            checker.warn(
                at,
                format!("{host:?} is a part of a name: write a whole domain such as *.example.com"),
            );
        } else if is_known {
            checker.warn(at, format!("{host:?} stands twice: the second one has no effect"));
        }
    }
    let is_told_apart = |port: &ServicePort| {
        let protocol = port.protocol.to_ascii_uppercase();
        !matches!(protocol.as_str(), "" | "TCP" | "UDP" | "MONGO" | "REDIS" | "MYSQL")
    };
    if resolution != Resolution::None && entry.hosts.len() > 1 && !entry.ports.iter().all(is_told_apart) {
        checker.error(
            "hosts",
            "several hosts cannot be told apart on a port that is neither HTTP nor TLS: \
             give each a ServiceEntry of its own",
        );
        return;
    }
    let is_told_by_address = |port: &ServicePort| {
        let protocol = port.protocol.to_ascii_uppercase();
        matches!(protocol.as_str(), "TCP" | "HTTPS" | "TLS" | "MONGO" | "REDIS" | "MYSQL")
    };
    if matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin)
        && entry.hosts.len() > 1
        && !entry.addresses.is_empty()
        && entry.ports.iter().any(is_told_by_address)
    {
        checker.warn(
            "addresses",
            "are those of several hosts, of which only one gets the connections of ports that are not HTTP: \
             give each host a ServiceEntry of its own",
        );
    }
}

fn addresses(entry: &Spec, resolution: Resolution, checker: &mut Checker) {
    for (index, address) in entry.addresses.iter().enumerate() {
        let at = format!("addresses[{index}]");
        match address.split_once('/') {
            None if address.parse::<IpAddr>().is_ok() => {}
            Some((ip, bits)) if is_range(ip, bits) => {
                if !matches!(resolution, Resolution::None | Resolution::Static) {
                    checker.error(
                        at,
                        format!("{address:?} is a range, which is for resolution NONE or STATIC: give single addresses"),
                    );
                }
            }
            _ => checker
                .error(at, format!("{address:?} is neither an IP address nor a range such as 10.0.0.0/8")),
        }
    }
    if resolution == Resolution::DynamicDns && !entry.addresses.is_empty() {
        checker.error(
            "addresses",
            "resolution DYNAMIC_DNS knows hosts by their name only: remove the addresses",
        );
    }
}

fn is_range(ip: &str, bits: &str) -> bool {
    let most = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn ports(entry: &Spec, resolution: Resolution, checker: &mut Checker) {
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in entry.ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        checker.port(&format!("{at}.number"), port.number);
        if port.target_port != 0 {
            checker.port(&format!("{at}.targetPort"), port.target_port);
        }
        if port.name.is_empty() {
            checker.error(format!("{at}.name"), "is missing: name the port, such as http");
        } else if !is_dns_label(&port.name) {
            let expected = "expected small letters, digits and hyphens, such as http-web";
            checker.error(
                format!("{at}.name"),
                format!("{:?} is not the name of a port: {expected}", port.name),
            );
        } else if !names.insert(&port.name) {
            let message = format!("there are two ports {:?}: give each another name", port.name);
            checker.error(format!("{at}.name"), message);
        }
        if port.number > 0 && !numbers.insert(port.number) {
            let message = format!("{} stands twice: give each port another number", port.number);
            checker.error(format!("{at}.number"), message);
        }
        let protocol = port.protocol.to_ascii_uppercase();
        if !protocol.is_empty() && !PROTOCOLS.contains(&protocol.as_str()) {
            let message = format!("{:?} is unknown: expected {}", port.protocol, PROTOCOLS.join(", "));
            checker.error(format!("{at}.protocol"), message);
        } else if resolution == Resolution::DynamicDns
            && !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "TLS")
        {
            checker.error(
                format!("{at}.protocol"),
                "resolution DYNAMIC_DNS is for HTTP, HTTP2, GRPC and TLS: only they name their host",
            );
        } else if matches!(protocol.as_str(), "" | "TCP")
            && entry.addresses.is_empty()
            && resolution == Resolution::None
        {
            checker.warn(
                format!("{at}.protocol"),
                "without addresses all TCP connections to this port are taken for this service: give addresses",
            );
        }
    }
}

fn endpoints(entry: &Spec, resolution: Resolution, checker: &mut Checker) {
    if entry.endpoints.is_empty() {
        return;
    }
    let names: BTreeSet<&str> = entry.ports.iter().map(|port| port.name.as_str()).collect();
    let form = match resolution {
        Resolution::None => {
            return checker.error(
                "endpoints",
                "have no effect with resolution NONE, where the client chooses the address: \
                 remove them, or use STATIC or DNS",
            );
        }
        Resolution::DynamicDns => {
            return checker.error(
                "endpoints",
                "have no effect with resolution DYNAMIC_DNS, where the host is the address: remove them",
            );
        }
        Resolution::Static => Form::Static,
        Resolution::Dns | Resolution::DnsRoundRobin => Form::Dns,
    };
    if resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        checker.error("endpoints", "resolution DNS_ROUND_ROBIN uses one endpoint: keep one, or use DNS");
    }
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        workload_entry::endpoint(&format!("endpoints[{index}]."), endpoint, form, Some(&names), checker);
    }
}

fn selector(entry: &Spec, resolution: Resolution, checker: &mut Checker) {
    let Some(selector) = &entry.workload_selector else { return };
    if !entry.endpoints.is_empty() {
        checker.error("workloadSelector", "cannot stand beside endpoints: keep one of them");
    }
    match resolution {
        Resolution::None => checker.warn(
            "workloadSelector",
            "has no effect on traffic with resolution NONE, where the client chooses the address",
        ),
        Resolution::DynamicDns => checker.warn(
            "workloadSelector",
            "has no effect with resolution DYNAMIC_DNS, where the host is the address",
        ),
        _ => {}
    }
    if selector.labels.is_empty() {
        checker.warn("workloadSelector.labels", "is empty: every workload of the namespace is selected");
    }
    for (key, value) in &selector.labels {
        let at = format!("workloadSelector.labels.{key}");
        if key.is_empty() {
            checker.error("workloadSelector.labels", "has an empty key: name a label");
        } else if key.contains('*') || value.contains('*') {
            checker.error(at, format!("\"{key}={value}\": wildcards are not supported"));
        }
    }
}

/// As for other kinds, but that `~`, which exports to nobody, is allowed alone.
fn export_to(entry: &Spec, checker: &mut Checker) {
    let list = &entry.export_to;
    let mut known = HashSet::new();
    for (index, name) in list.iter().enumerate() {
        if !known.insert(name) {
            checker.error(format!("exportTo[{index}]"), format!("{name:?} stands twice: remove one"));
        }
    }
    if list.iter().any(|name| name == "~") {
        if list.len() > 1 {
            checker.error("exportTo", "\"~\" exports to nobody: it cannot stand beside others");
        }
        return;
    }
    checker.export_to(list);
}

#[cfg(test)]
mod tests;
