//! Which servers a `router` proxy has, by all its Gateways. Its listeners are
//! made by [`super::listener`], its routes by [`super::route`].

pub(super) mod quic;
mod topology;

use crate::scope::{Scope, workload_ports};
use crate::snapshot::gateway::merge::Merged;

pub(super) use topology::{Topology, internal_addresses};

/// The servers of all Gateways that select the proxy.
pub(super) fn servers(scope: Scope<'_>) -> Merged<'_> {
    let is_scoped = scope.snapshot.settings.features.scope_gateway_to_namespace;
    let namespace = is_scoped.then_some(scope.proxy.namespace.as_str());
    let gateways = scope.snapshot.gateways.of_proxy(scope.labels(), namespace);
    // Users open the port of the service in front; the proxy listens on its own.
    let ports = workload_ports(scope.snapshot, scope.proxy);
    Merged::new(gateways, |port| ports.get(&port).copied().unwrap_or(port))
}

/// Whether a gateway passes connections on to the cluster that the client's proxy
/// asks for (`AUTO_PASSTHROUGH`).
pub(super) fn passes_by_name(scope: Scope<'_>) -> bool {
    servers(scope).passes_by_name()
}
