//! Forwarding of bytes to the destinations of a route, or to a service.

use std::sync::Arc;

use config::kube::TargetPort;
use names::{ClusterName, Hostname};
use proto::envoy::config::listener::v3::Filter;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use proto::istio::networking::v1alpha3::{Destination, RouteDestination};

use super::chain;
use crate::generate::cluster::stat;
use crate::generate::filter::Place;
use crate::generate::hash;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::virtual_service::Entry;
use crate::snapshot::{Port, Service};

/// Filters that forward to a port of a service, as its DestinationRule says.
pub(super) fn through(scope: Scope<'_>, place: Place<'_>, service: &Service, number: u16) -> Vec<Filter> {
    let cluster = ClusterName::outbound(number, "", &service.host).to_string();
    let mut proxy = chain::proxy(scope, &cluster);
    set_stat_prefix(scope, &mut proxy, service, "", number, "");
    hash::tcp(scope, service, "", &mut proxy);
    chain::forward(scope, place, proxy, &cluster)
}

/// Names the statistics of connections to a service by the mesh's pattern, if
/// it has one (`outboundClusterStatName`).
fn set_stat_prefix(
    scope: Scope<'_>,
    proxy: &mut TcpProxy,
    service: &Service,
    subset: &str,
    number: u16,
    port_name: &str,
) {
    let pattern = &scope.snapshot.mesh.outbound_cluster_stat_name;
    if !pattern.is_empty() {
        let port = Port {
            name: port_name.to_owned(),
            number,
            target: TargetPort::Number(number),
            protocol: Protocol::Tcp,
        };
        proxy.stat_prefix = stat::by_pattern(pattern, service, &port, subset, 0);
    }
}

/// Filters for the destinations of a route; `None` when it has none. A
/// destination without a port means the only one of its service, else that of
/// the place.
pub(super) fn to(
    scope: Scope<'_>,
    place: Place<'_>,
    entry: &Entry,
    routes: &[RouteDestination],
) -> Option<Vec<Filter>> {
    let port = place.port;
    let mut targets = routes.iter().filter_map(|route| Some((route.destination.as_ref()?, route.weight)));
    let (first, _) = targets.clone().next()?;
    let host = Hostname::new(&first.host);
    let service = service(scope, &host);
    let (proxy, cluster) = if let [_] = routes {
        let cluster = cluster(scope, first, port);
        let mut proxy = chain::proxy(scope, &cluster);
        if let Some(service) = service {
            let own = place.service.and_then(|own| own.port(port)).map_or("", |own| own.name.as_str());
            set_stat_prefix(scope, &mut proxy, service, &first.subset, port, own);
            hash::tcp(scope, service, &first.subset, &mut proxy);
        }
        (proxy, cluster)
    } else {
        let weighted = targets.by_ref().filter_map(|(destination, weight)| {
            let weight = u32::try_from(weight).ok().filter(|weight| *weight > 0)?;
            let name = cluster(scope, destination, port);
            Some(ClusterWeight { name, weight, ..ClusterWeight::default() })
        });
        let clusters: Vec<ClusterWeight> = weighted.collect();
        let name = clusters.first()?.name.clone();
        let mut proxy = TcpProxy {
            stat_prefix: format!("{}.{}", entry.name, entry.namespace),
            cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })),
            ..chain::proxy(scope, &name)
        };
        if let Some(service) = service {
            hash::tcp(scope, service, "", &mut proxy);
        }
        (proxy, name)
    };
    Some(chain::forward(scope, place, proxy, &cluster))
}

fn service<'a>(scope: Scope<'a>, host: &Hostname) -> Option<&'a Arc<Service>> {
    scope.service(host).or_else(|| scope.snapshot.service(host))
}

/// The cluster of a destination; without a port it means the service's only
/// one, else that of the listener.
fn cluster(scope: Scope<'_>, destination: &Destination, listener: u16) -> String {
    let host = Hostname::new(&destination.host);
    let own = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    let only = || match service(scope, &host)?.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    };
    let port = own.or_else(only).unwrap_or(listener);
    ClusterName::outbound(port, &destination.subset, &host).to_string()
}
