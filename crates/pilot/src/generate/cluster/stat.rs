//! Names of clusters in statistics.

use crate::snapshot::{Port, Registry, Service};

/// The name in statistics: the semicolon ends it where Istio's dashboards cut.
pub(in crate::generate) fn name(name: &str) -> String {
    format!("{name};")
}

/// The name by the mesh's pattern (`outboundClusterStatName`,
/// `inboundClusterStatName`). `target` is the workload's port of an inbound cluster, else 0.
pub(in crate::generate) fn by_pattern(
    pattern: &str,
    service: &Service,
    port: &Port,
    subset: &str,
    target: u16,
) -> String {
    let Service { name, namespace, host, .. } = service;
    let (short, only) = match service.registry {
        Registry::Kubernetes => (format!("{name}.{namespace}"), name.as_str()),
        Registry::External => (host.to_string(), host.as_str()),
    };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", only)
        .replace("%SERVICE_FQDN%", host.as_str())
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target.to_string())
        .replace("%SERVICE_PORT%", &port.number.to_string())
        .replace("%SERVICE_PORT_NAME%", &port.name)
}

/// The name by the mesh's `inboundClusterStatName` of connections to ports that
/// nobody declares: no service, and the listener's name as that of the port.
pub(in crate::generate) fn of_undeclared(pattern: &str) -> String {
    let empty = ["%SERVICE%", "%SERVICE_NAME%", "%SERVICE_FQDN%", "%SUBSET_NAME%"];
    let number = ["%TARGET_PORT%", "%SERVICE_PORT%"];
    let pattern = empty.iter().fold(pattern.to_owned(), |made, key| made.replace(key, ""));
    let pattern = number.iter().fold(pattern, |made, key| made.replace(key, "0"));
    pattern.replace("%SERVICE_PORT_NAME%", "virtualInbound")
}
