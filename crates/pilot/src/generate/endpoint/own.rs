//! The cluster that a proxy has of its own kind (`ISTIO_META_ENABLE_SELF_DISCOVERY`):
//! from how the workloads like it are spread over zones Envoy knows which share of
//! its calls has to leave its own.

use std::collections::BTreeMap;

use super::group::{Group, Member};
use super::{Filter, network};
use crate::generate::cluster::policy::Policy;
use crate::place;
use crate::scope::Scope;
use crate::snapshot::Endpoint;

/// Its name, which the agent's bootstrap has, too.
pub(crate) const CLUSTER: &str = "local_cluster";
/// Labels by which one roll-out of a workload differs from the next: calls are
/// spread evenly within one.
const ROLLOUT: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

/// Endpoints of the oldest service that leads to the proxy's workload, as far as
/// they are of that workload and region; no policy changes their order.
pub(super) fn groups(scope: Scope<'_>) -> Vec<Group<'_>> {
    let Some((service, port)) = scope.own_service() else { return Vec::new() };
    if service.resolution.is_dns() {
        return Vec::new();
    }
    let filter = Filter::new(scope, service, &Policy::default());
    let region = place::locality(scope.snapshot, scope.proxy).region;
    let name = scope.proxy.says("WORKLOAD_NAME");
    let labels = scope.labels();
    let is_alike = |endpoint: &Endpoint| {
        endpoint.name == name
            && endpoint.locality.region == region
            && ROLLOUT.iter().all(|key| labels.get(*key) == endpoint.labels.get(*key))
    };
    let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
    let has_address = |endpoint: &&Endpoint| endpoint.address.is_empty() || endpoint.ip().is_some();
    for endpoint in service.endpoints_of(port).filter(has_address) {
        if filter.admits(endpoint) && is_alike(endpoint) {
            let group = groups.entry(&endpoint.locality).or_insert_with(|| Group::new(&endpoint.locality));
            group.members.push(Member::direct(endpoint, filter.health(endpoint), endpoint.accepts_mtls));
        }
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.iter_mut().for_each(Group::sum_up);
    let networks = &scope.snapshot.networks;
    if networks.has_gateways() {
        groups.iter_mut().for_each(|group| network::split(networks, scope.proxy, group));
    } else {
        groups.iter_mut().for_each(|group| group.retain(|member| member.has_address()));
    }
    groups
}
