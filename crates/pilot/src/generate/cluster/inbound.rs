//! Clusters that lead to the proxy's own workload.

use std::net::IpAddr;

use config::kube::TargetPort;
use names::ClusterName;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use proto::envoy::config::core::v3::{Address, Metadata, Pipe, address};
use proto::istio::mesh::v1alpha1::mesh_config::inbound_traffic_policy::Mode as InboundMode;

use super::draft::Draft;
use super::fixed::{assignment, own_source};
use super::policy::Policy;
use super::{base, header_case, of_type, pool, stat};
use crate::generate::message::{self, api_path, metadata, seconds, service_list, structure};
use crate::scope::{Inbound, Scope};
use crate::snapshot::{Port, Service};

/// "Never": the largest length of time that Go's clock can hold.
const FOREVER: i64 = 9_223_372_035;

/// One cluster for each served port of the workload.
pub(super) fn clusters(scope: Scope<'_>) -> Vec<Cluster> {
    scope.inbound().iter().filter_map(|inbound| of_port(scope, inbound)).collect()
}

/// Where requests to a port of the workload go.
enum Place {
    /// To the port itself, at the address that they came to.
    Original,
    /// To this address.
    At(Address),
}

fn of_port(scope: Scope<'_>, inbound: &Inbound<'_>) -> Option<Cluster> {
    let place = place(scope, inbound)?;
    let mesh = &scope.snapshot.mesh;
    let name = ClusterName::inbound(inbound.target).to_string();
    let mut draft = Draft::new(base(scope, name.clone()));
    draft.cluster.common_lb_config = Some(CommonLbConfig::default());
    let mut is_loopback = false;
    match place {
        Place::Original => {
            draft.cluster.cluster_discovery_type = of_type(DiscoveryType::OriginalDst);
            draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
            draft.cluster.cleanup_interval = seconds(FOREVER);
        }
        Place::At(address) => {
            is_loopback = self::is_loopback(&address);
            draft.cluster.cluster_discovery_type = of_type(DiscoveryType::Static);
            draft.cluster.load_assignment = Some(assignment(&name, address));
        }
    }
    if let (false, Some(service)) = (mesh.inbound_cluster_stat_name.is_empty(), inbound.service) {
        let pattern = &mesh.inbound_cluster_stat_name;
        draft.cluster.alt_stat_name =
            stat::name(&stat::by_pattern(pattern, service, inbound.port, "", inbound.target));
    }
    draft.set_protocol(inbound.port.protocol, &header_case::options(scope), false);
    draft.cluster.metadata = describe(scope, inbound);
    // Limits that the rule for the workload's own host sets hold on this side
    // too; the Sidecar's go before them.
    let rule = inbound.service.and_then(|service| scope.inbound_rule(service));
    let policy = Policy::of_rule(
        rule.and_then(|rule| rule.policy.as_ref()),
        inbound.port.number,
        &scope.snapshot.mesh,
    );
    let connections = scope.inbound_connection_pool(inbound.target).or(policy.connection_pool);
    pool::apply(&mut draft, mesh, connections, policy.retry_budget);
    // The kernel would send connections to the loopback address back to us.
    if !is_loopback {
        draft.cluster.upstream_bind_config = own_source(scope, false);
    }
    Some(draft.finish())
}

/// Where requests go; `None` when the Sidecar's `defaultEndpoint` is no place.
fn place(scope: Scope<'_>, inbound: &Inbound<'_>) -> Option<Place> {
    let ip = |ip: &str, port: u16| Place::At(message::address(ip, port));
    let has = |is_v6: bool| scope.proxy.ips.iter().find(|ip| ip.is_ipv6() == is_v6);
    let loopback = |prefers_v6: bool| match (prefers_v6, has(false), has(true)) {
        (false, Some(_), _) | (true, _, None) => "127.0.0.1",
        (true, ..) | (false, None, _) => "::1",
    };
    let Some(ingress) = inbound.ingress else {
        let policy = scope.snapshot.mesh.inbound_traffic_policy.as_ref();
        let is_local = policy.is_some_and(|policy| policy.mode() == InboundMode::Localhost);
        return Some(if is_local { ip(loopback(false), inbound.target) } else { Place::Original });
    };
    let endpoint = ingress.spec.default_endpoint.as_str();
    if endpoint.is_empty() {
        return Some(Place::Original);
    }
    if let Some(path) = endpoint.strip_prefix("unix://") {
        let pipe = Pipe { path: path.into(), ..Pipe::default() };
        return Some(Place::At(Address { address: Some(address::Address::Pipe(pipe)) }));
    }
    let (host, port) = endpoint.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let own = |is_v6: bool, otherwise: &str| has(is_v6).map_or(otherwise.to_owned(), IpAddr::to_string);
    match host {
        "0.0.0.0" => Some(ip(&own(false, "127.0.0.1"), port)),
        "[::]" => Some(ip(&own(true, "::1"), port)),
        "127.0.0.1" => Some(ip(loopback(false), port)),
        "[::1]" => Some(ip(loopback(true), port)),
        // Anything else is where the client meant to go, as in Istio.
        _ => Some(Place::Original),
    }
}

fn is_loopback(address: &Address) -> bool {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => {
            matches!(socket.address.as_str(), "127.0.0.1" | "::1")
        }
        _ => false,
    }
}

/// The services that lead to the port, and the rule that sets its limits.
fn describe(scope: Scope<'_>, inbound: &Inbound<'_>) -> Option<Metadata> {
    let service = inbound.service?;
    if service.is_external {
        return None;
    }
    let services: Vec<&Service> = match inbound.ingress {
        Some(_) => vec![service],
        // Only those that clients call by the same port.
        None => {
            let leads = |other: &&Service| {
                other
                    .ports
                    .iter()
                    .any(|port| port.number == inbound.port.number && leads_to(port, inbound.target))
            };
            scope.services_of(inbound.target).into_iter().map(|service| &**service).filter(leads).collect()
        }
    };
    let mut fields = structure([("services", service_list(services.into_iter()))]);
    if let Some(rule) = scope.inbound_rule(service).filter(|rule| rule.policy.is_some()) {
        let (namespace, name) = &rule.origin;
        let path = api_path("networking.istio.io", "destination-rule", namespace, name);
        fields.fields.insert("config".into(), path);
    }
    Some(metadata([("istio", fields)]))
}

/// Whether a port leads to that one of the workload, as far as its number says.
fn leads_to(port: &Port, target: u16) -> bool {
    match port.target {
        TargetPort::Number(0) => port.number == target,
        TargetPort::Number(number) => number == target,
        TargetPort::Name(_) => true,
    }
}
