//! Rules of `WorkloadEntry`.

use proto::istio::networking::v1alpha3::WorkloadEntry;

use crate::validate::{Checker, is_dns_label};

pub(super) fn check(entry: &WorkloadEntry, checker: &mut Checker) {
    if entry.address.is_empty() {
        if entry.network.is_empty() {
            checker.error("address", "is missing: give an IP address, a host name or unix:///PATH");
        }
    } else if let Some(path) = entry.address.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) || path.ends_with('/') {
            let message =
                format!("{:?}: the path of a socket must be absolute, and no directory", entry.address);
            checker.error("address", message);
        }
        if !entry.ports.is_empty() {
            checker.error("ports", "a Unix socket has no ports");
        }
    } else if entry.address.parse::<std::net::IpAddr>().is_err() {
        checker.host("address", &entry.address);
        if entry.address.starts_with('*') {
            checker.error("address", format!("{:?} is no single host", entry.address));
        }
    }
    if !entry.address.is_empty() && entry.address.parse::<std::net::IpAddr>().is_err() {
        // As in Istio, where only ServiceEntries use these.
        checker.warn("address", "is no IP address: services do not use this workload");
    }
    checker.not_yet("network", !entry.network.is_empty());
    for (name, port) in &entry.ports {
        let at = format!("ports.{name}");
        if !is_dns_label(&name.to_ascii_lowercase()) {
            checker.error(
                &at,
                format!("{name:?} is not the name of a port: expected letters, digits and hyphens"),
            );
        }
        checker.port(&at, *port);
    }
    for (key, value) in &entry.labels {
        checker.label(&format!("labels.{key}"), key, value);
    }
}
