//! Clusters that lead to the proxy's own workload, and the fixed ones.

use names::{ClusterName, cluster_name};
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use proto::envoy::config::core::v3::{BindConfig, HttpProtocolOptions as CommonOptions};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

use super::policy::{self, http2, use_downstream};
use super::{base, breakers, of_type, set_http_options, stat_name, unlimited};
use crate::generate::message::{metadata, seconds, service_list, socket_address, structure};
use crate::protocol::Protocol;
use crate::scope::{Inbound, Scope};

/// Source address by which the kernel's rules know traffic from Envoy to its own workload.
const PASSTHROUGH_SOURCE: &str = "127.0.0.6";
/// "Never": the largest length of time that Go's clock can hold.
const FOREVER: i64 = 9_223_372_035;

pub(super) fn clusters(scope: Scope<'_>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = scope.inbound().iter().map(|inbound| of_port(scope, inbound)).collect();
    clusters.push(black_hole(scope));
    clusters.push(passthrough(scope, cluster_name::PASSTHROUGH));
    let mut inbound = passthrough(scope, cluster_name::INBOUND_PASSTHROUGH);
    inbound.upstream_bind_config = own_source();
    clusters.push(inbound);
    clusters
}

fn own_source() -> Option<BindConfig> {
    Some(BindConfig { source_address: Some(socket_address(PASSTHROUGH_SOURCE, 0)), ..BindConfig::default() })
}

fn black_hole(scope: Scope<'_>) -> Cluster {
    Cluster {
        cluster_discovery_type: of_type(DiscoveryType::Static),
        ..base(scope, cluster_name::BLACK_HOLE.into())
    }
}

fn passthrough(scope: Scope<'_>, name: &str) -> Cluster {
    let mut cluster = Cluster {
        // Both count under one name, as Istio's dashboards expect.
        alt_stat_name: stat_name(cluster_name::PASSTHROUGH),
        cluster_discovery_type: of_type(DiscoveryType::OriginalDst),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: breakers(unlimited()),
        ..base(scope, name.into())
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: seconds(300),
            ..CommonOptions::default()
        }),
        upstream_protocol_options: Some(use_downstream()),
        ..HttpProtocolOptions::default()
    };
    set_http_options(&mut cluster, &options);
    cluster
}

fn of_port(scope: Scope<'_>, inbound: &Inbound<'_>) -> Cluster {
    let services = scope.services_of(inbound.target);
    let mut cluster = Cluster {
        cluster_discovery_type: of_type(DiscoveryType::OriginalDst),
        lb_policy: LbPolicy::ClusterProvided.into(),
        upstream_bind_config: own_source(),
        cleanup_interval: seconds(FOREVER),
        circuit_breakers: breakers(unlimited()),
        common_lb_config: Some(Default::default()),
        metadata: Some(metadata([(
            "istio",
            structure([("services", service_list(services.iter().map(|service| &***service)))]),
        )])),
        ..base(scope, ClusterName::inbound(inbound.target).to_string())
    };
    let protocol = inbound.port.protocol;
    let mut options = HttpProtocolOptions::default();
    if protocol.is_http2() {
        options.upstream_protocol_options = Some(http2(0));
    } else if protocol == Protocol::Auto {
        options.upstream_protocol_options = Some(use_downstream());
    }
    // Limits that the workload's own namespace sets for its host hold on this side too.
    if let Some(pool) = scope
        .rule(inbound.service)
        .and_then(|rule| policy::for_port(rule.policy.as_ref(), None, inbound.port.number).connection_pool)
    {
        policy::connection_pool(&mut cluster, &mut options, pool, inbound.port.protocol);
    }
    policy::finish(&mut cluster, &options);
    cluster
}
