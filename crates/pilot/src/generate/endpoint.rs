//! Endpoint assignments (EDS).

use std::collections::BTreeMap;

use names::{ClusterName, Direction};
use proto::envoy::config::core::v3::{HealthStatus, Locality as ApiLocality};
use proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as ApiEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use super::message::{address, metadata, structure, text};
use crate::scope::Scope;
use crate::snapshot::Endpoint;
use crate::snapshot::endpoint::Locality;

/// The assignment of a cluster; empty when the cluster does not exist.
pub(super) fn assignment(scope: Scope<'_>, cluster: &str) -> ClusterLoadAssignment {
    let endpoints = cluster.parse().map_or_else(|_| Vec::new(), |name| endpoints(scope, &name));
    let mut localities: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &endpoints {
        localities.entry(&endpoint.locality).or_default().push(endpoint);
    }
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: localities
            .into_iter()
            .map(|(locality, endpoints)| of_locality(locality, &endpoints))
            .collect(),
        ..ClusterLoadAssignment::default()
    }
}

/// The endpoints of a cluster that the proxy may use.
fn endpoints<'a>(scope: Scope<'a>, name: &ClusterName) -> Vec<&'a Endpoint> {
    let service = scope.snapshot.service(&name.host).filter(|_| name.direction == Direction::Outbound);
    let Some(service) = service.filter(|service| service.visibility.includes(&scope.proxy.namespace)) else {
        return Vec::new();
    };
    let Some(port) = service.port(name.port) else { return Vec::new() };
    let labels = if name.subset.is_empty() {
        None
    } else {
        let rule = scope.rule(service);
        match rule.and_then(|rule| rule.subsets.iter().find(|subset| subset.name == name.subset)) {
            Some(subset) => Some(&subset.labels),
            None => return Vec::new(),
        }
    };
    service
        .endpoints_of(port)
        .filter(|endpoint| labels.is_none_or(|labels| config::matches(labels, &endpoint.labels)))
        .filter(|endpoint| !service.is_node_local || endpoint.node_name == scope.proxy.node_name)
        .collect()
}

fn of_locality(locality: &Locality, endpoints: &[&Endpoint]) -> LocalityLbEndpoints {
    let weight: u32 = endpoints.iter().fold(0, |sum, endpoint| sum.saturating_add(endpoint.weight));
    LocalityLbEndpoints {
        locality: Some(ApiLocality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        lb_endpoints: endpoints.iter().map(|endpoint| of_endpoint(endpoint)).collect(),
        load_balancing_weight: Some(weight),
        ..LocalityLbEndpoints::default()
    }
}

fn of_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let health = match (endpoint.has_health, endpoint.is_ready) {
        (false, _) => HealthStatus::Unknown,
        (true, true) => HealthStatus::Healthy,
        (true, false) => HealthStatus::Unhealthy,
    };
    let workload = ("istio", structure([("workload", text(&endpoint.workload))]));
    let metadata = if endpoint.accepts_mtls {
        metadata([("envoy.transport_socket_match", structure([("tlsMode", text("istio"))])), workload])
    } else {
        metadata([workload])
    };
    LbEndpoint {
        health_status: health.into(),
        metadata: Some(metadata),
        load_balancing_weight: Some(endpoint.weight),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(ApiEndpoint {
            address: Some(address(&endpoint.address, endpoint.port)),
            ..ApiEndpoint::default()
        })),
    }
}
