//! Clusters (CDS).

mod inbound;
mod outbound;
pub(super) mod policy;

use proto::Any;
use proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

pub(super) use outbound::identities;

use super::message::seconds;
use crate::scope::Scope;

/// Key of the HTTP options of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// All clusters of a proxy.
pub(super) fn clusters(scope: Scope<'_>) -> Vec<Cluster> {
    let mut clusters = outbound::clusters(scope);
    clusters.extend(inbound::clusters(scope));
    clusters
}

pub(super) fn of_type(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}

/// The name in statistics: the semicolon ends it where Istio's dashboards cut.
pub(super) fn stat_name(name: &str) -> String {
    format!("{name};")
}

/// A cluster without anything but its name and the mesh's connect time-out.
fn base(scope: Scope<'_>, name: String) -> Cluster {
    Cluster {
        alt_stat_name: stat_name(&name),
        name,
        connect_timeout: scope.snapshot.mesh.connect_timeout.map(Into::into).or(seconds(10)),
        ..Cluster::default()
    }
}

/// Envoy's defaults are low enough to break a mesh; no limit unless a
/// DestinationRule sets one.
fn unlimited() -> Thresholds {
    Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Thresholds::default()
    }
}

fn breakers(thresholds: Thresholds) -> Option<CircuitBreakers> {
    Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() })
}

fn set_http_options(cluster: &mut Cluster, options: &HttpProtocolOptions) {
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.into(), Any::pack(options));
}
