//! Patches of clusters.

use std::collections::BTreeSet;

use names::ClusterName;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, PatchContext};

use super::{Patches, Value, is_merge, matching, merge, merging};
use crate::scope::Scope;
use crate::snapshot::envoy_filter::Patch;

pub(super) fn patch(
    scope: Scope<'_>,
    context: PatchContext,
    patches: &Patches<'_>,
    clusters: Vec<Cluster>,
) -> Vec<Cluster> {
    let own = patches.of(ApplyTo::Cluster);
    let mut patched: Vec<Cluster> =
        clusters.into_iter().filter_map(|cluster| apply(scope, own, cluster)).collect();
    patched.extend(patches.added::<Cluster>(ApplyTo::Cluster, context));
    // Envoy refuses all clusters when two have one name.
    let mut names = BTreeSet::new();
    patched.retain(|cluster| !cluster.name.is_empty() && names.insert(cluster.name.clone()));
    patched
}

/// `None` when it is removed.
fn apply(scope: Scope<'_>, patches: &[&Patch], mut cluster: Cluster) -> Option<Cluster> {
    for patch in patches {
        let removes = patch.operation == Operation::Remove;
        if !removes && !is_merge(patch.operation) || !fits(scope, patch, &cluster) {
            continue;
        }
        if removes {
            return None;
        }
        let Some(value) = &patch.value else { continue };
        if !merge_socket(patch.operation, &mut cluster, value) {
            merge::merge(patch.operation, &mut cluster, value);
        }
    }
    Some(cluster)
}

fn fits(scope: Scope<'_>, patch: &Patch, cluster: &Cluster) -> bool {
    let Some(matcher) = matching::on_cluster(patch) else { return true };
    if !matcher.name.is_empty() {
        return matcher.name == cluster.name;
    }
    let name = parsed(&cluster.name);
    let port = name.as_ref().map_or(0, |name| name.port);
    let is_service = || match &name {
        None => false,
        // Clusters to the workload bear no host: all services of the port count.
        Some(name) if name.host.as_str().is_empty() => {
            scope.services_of(port).iter().any(|service| service.host.as_str() == matcher.service)
        }
        Some(name) => name.host.as_str() == matcher.service,
    };
    let is_subset = || name.as_ref().is_some_and(|name| name.subset == matcher.subset);
    (matcher.subset.is_empty() || is_subset())
        && (matcher.port_number == 0 || matcher.port_number == u32::from(port))
        && (matcher.service.is_empty() || is_service())
}

/// A name of either form: those for connections that gateways pass on are
/// written as server names.
fn parsed(name: &str) -> Option<ClusterName> {
    if name.starts_with("outbound_.") {
        return name.splitn(4, "_.").collect::<Vec<_>>().join("|").parse().ok();
    }
    name.parse().ok()
}

fn config(socket: &mut TransportSocket) -> Option<&mut proto::Any> {
    match socket.config_type.as_mut()? {
        transport_socket::ConfigType::TypedConfig(config) => Some(config),
    }
}

/// A patch with a transport socket changes that alone: the one of the same
/// name that the cluster has, wherever it stands. Whether there is one.
fn merge_socket(operation: Operation, cluster: &mut Cluster, value: &Value) -> bool {
    let Some(mut socket) = merging::<Cluster>(value).and_then(|patch| patch.transport_socket) else {
        return false;
    };
    let own = if cluster.transport_socket_matches.is_empty() {
        cluster.transport_socket.as_mut().filter(|own| own.name == socket.name)
    } else {
        let sockets = cluster.transport_socket_matches.iter_mut();
        let same = sockets
            .filter_map(|matching| matching.transport_socket.as_mut())
            .find(|own| own.name == socket.name);
        // One beside a list of them is nothing that Envoy takes.
        if same.is_none() {
            return true;
        }
        same
    };
    match own {
        Some(own) => {
            if let (Some(own), Some(patch)) = (config(own), config(&mut socket)) {
                merge::merge_any(operation, own, patch);
            }
        }
        None => cluster.transport_socket = Some(socket),
    }
    true
}
