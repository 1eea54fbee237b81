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
