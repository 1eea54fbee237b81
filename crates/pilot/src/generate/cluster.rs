//! Clusters (CDS).

mod balancer;
pub(super) mod dns;
mod draft;
mod fixed;
pub(super) mod header_case;
mod inbound;
mod outbound;
mod outlier;
pub(super) mod policy;
pub(super) mod pool;
mod secure;
pub(super) mod stat;
mod utilization;

use config::kube::TargetPort;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig,
};

pub(super) use balancer::spread_by_hash;
pub(super) use secure::identities;
pub(super) use stat::name as stat_name;

use super::message::seconds;
use super::{Side, gateway};
use crate::proxy::ProxyKind;
use crate::scope::Scope;
use crate::snapshot::service::TrafficDistribution;
use crate::snapshot::{Port, Registry, Resolution, Service};

/// The clusters of one side of a proxy.
pub(super) fn side(scope: Scope<'_>, side: Side) -> Vec<Cluster> {
    let is_sidecar = scope.proxy.kind == ProxyKind::Sidecar;
    match side {
        Side::Shared => {
            let mut clusters = outbound::clusters(scope);
            clusters.push(fixed::black_hole(scope));
            if is_sidecar {
                clusters.push(fixed::passthrough(scope));
                clusters.extend(scope.resolves_unknown().then(|| fixed::dynamic(scope)));
            } else if gateway::passes_by_name(scope) {
                clusters.extend(outbound::untouched(scope));
            }
            clusters.extend(fixed::credentials(scope));
            clusters
        }
        Side::Own if is_sidecar => {
            let mut clusters = inbound::clusters(scope);
            clusters.push(fixed::inbound_passthrough(scope));
            clusters
        }
        // A gateway has no workload.
        Side::Own => Vec::new(),
    }
}

pub(super) fn of_type(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}

/// A cluster without anything but its name and the mesh's connect time-out.
fn base(scope: Scope<'_>, name: String) -> Cluster {
    Cluster {
        alt_stat_name: stat::name(&name),
        name,
        connect_timeout: scope.snapshot.mesh.connect_timeout.map(Into::into).or(seconds(10)),
        ..Cluster::default()
    }
}

/// Leaves the cluster without endpoints, so that connections fail.
fn close(cluster: &mut Cluster) {
    cluster.cluster_discovery_type = of_type(DiscoveryType::Static);
    cluster.lb_policy = LbPolicy::RoundRobin.into();
    cluster.lb_config = None;
    cluster.eds_cluster_config = None;
    cluster.load_assignment = None;
}

/// The port of the server that the client has chosen, where a ServiceEntry says
/// that it differs from the one the client calls.
fn original_port(service: &Service, port: &Port) -> Option<LbConfig> {
    let is_entry = service.registry == Registry::External && service.resolution == Resolution::Passthrough;
    match port.target {
        TargetPort::Number(target) if is_entry && target > 0 && target != port.number => {
            Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                upstream_port_override: Some(target.into()),
                ..OriginalDstLbConfig::default()
            }))
        }
        _ => None,
    }
}

/// Whether endpoints that are not ready are sent whatever a rule says, so that
/// it is seen when the load must go elsewhere.
fn sends_unhealthy(scope: Scope<'_>, service: &Service) -> bool {
    let prefers = service.traffic_distribution != TrafficDistribution::Any;
    scope.snapshot.settings.features.send_unhealthy_endpoints || prefers
}

#[cfg(test)]
mod tests;
