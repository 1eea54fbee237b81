//! Rules of `WorkloadEntry`.

use proto::istio::networking::v1alpha3::WorkloadEntry;

use crate::validate::Checker;

pub(super) fn check(entry: &WorkloadEntry, checker: &mut Checker) {
    if entry.address.is_empty() {
        if entry.network.is_empty() {
            checker.error("address", "is missing: give an IP address, a host name or unix:///PATH");
        }
    } else if let Some(path) = entry.address.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) {
            checker.error("address", format!("{:?}: the path of a socket must be absolute", entry.address));
        }
        if !entry.ports.is_empty() {
            checker.error("ports", "a Unix socket has no ports");
        }
    } else if entry.address.parse::<std::net::IpAddr>().is_err() {
        checker.host("address", &entry.address);
    }
    for (name, port) in &entry.ports {
        checker.port(&format!("ports.{name}"), *port);
    }
    for (key, value) in &entry.labels {
        checker.label(&format!("labels.{key}"), key, value);
    }
}
