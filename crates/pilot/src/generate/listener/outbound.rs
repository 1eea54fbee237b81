//! Listeners for connections that the proxy's workload makes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::{ClusterName, port as ports};
use proto::envoy::config::core::v3::TrafficDirection;
use proto::envoy::config::listener::v3::{FilterChainMatch, Listener};

use super::chain::{
    black_hole, chain, http_inspector, matching, plain_http, tcp, unknown_destination, with_handshake_timeout,
};
use super::{ANY, base, set_detection_timeout};
use crate::generate::filter::{Direction, Place, access_log};
use crate::generate::http;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::{Port, Service};

/// Takes every redirected connection and hands it to the listener of its
/// destination; what has none goes where the mesh's policy says.
pub(super) fn catch_all(scope: Scope<'_>) -> Listener {
    let port = u16::try_from(scope.snapshot.mesh.proxy_listen_port).unwrap_or(ports::OUTBOUND);
    let loops = matching(Some(port), "", &[]);
    let mut listener = base("virtualOutbound".into(), ANY, port, TrafficDirection::Outbound);
    listener.use_original_dst = Some(true);
    listener.max_connections_to_accept_per_socket_event = Some(1);
    listener.access_log = access_log::listener(scope, Direction::Outbound);
    let anything = Place::new(Direction::Outbound, Protocol::Tcp, 0, None);
    listener.filter_chains = vec![
        chain("virtualOutbound-blackhole", Some(loops), black_hole(scope)),
        chain("virtualOutbound-catchall-tcp", None, tcp(scope, anything, unknown_destination(scope))),
    ];
    listener
}

/// One listener for all HTTP services of a port, one for each address and port
/// of other services. Where two claim the same, the older service wins.
pub(super) fn listeners(scope: Scope<'_>) -> Vec<Listener> {
    let mut made: BTreeMap<(String, u16), Listener> = BTreeMap::new();
    for service in scope.services() {
        for port in &service.ports {
            if port.protocol == Protocol::Udp || matches!(port.number, ports::OUTBOUND | ports::INBOUND) {
                continue;
            }
            for bind in binds(scope, service, port) {
                made.entry((bind.clone(), port.number))
                    .or_insert_with(|| of_port(scope, service, port, &bind));
            }
        }
    }
    made.into_values().collect()
}

/// The addresses that a service's port is reached by.
fn binds(scope: Scope<'_>, service: &Service, port: &Port) -> Vec<String> {
    if port.protocol.is_http() {
        return vec![ANY.into()];
    }
    if !service.is_headless {
        let first = service.addresses.first();
        return first.map_or_else(|| vec![ANY.into()], |address| vec![address.clone()]);
    }
    // A headless service is reached by the addresses of its workloads; its own
    // workload reaches itself without the mesh.
    let own: Vec<IpAddr> = scope.proxy.ips.clone();
    let mut binds: Vec<String> = Vec::new();
    for endpoint in service.endpoints_of(port) {
        let is_own = endpoint.address.parse().is_ok_and(|ip: IpAddr| own.contains(&ip));
        if !is_own && !binds.contains(&endpoint.address) {
            binds.push(endpoint.address.clone());
        }
    }
    binds
}

fn of_port(scope: Scope<'_>, service: &Service, port: &Port, bind: &str) -> Listener {
    let name = format!("{bind}_{}", port.number);
    let mut listener = base(name.clone(), bind, port.number, TrafficDirection::Outbound);
    listener.bind_to_port = Some(false);
    set_detection_timeout(scope, &mut listener);

    let cluster = ClusterName::outbound(port.number, "", &service.host).to_string();
    let place = Place::new(Direction::Outbound, port.protocol, port.number, Some(service));
    let to_service = || with_handshake_timeout(chain("", None, tcp(scope, place, &cluster)));
    let routed = |routes: &str| {
        let manager = http::outbound(scope, place, &format!("outbound_{name}"), routes);
        with_handshake_timeout(chain("", Some(plain_http(scope, None)), vec![manager]))
    };
    if port.protocol.is_http() {
        // The port is shared: what is not HTTP is for somebody else.
        let anything = Place::new(Direction::Outbound, Protocol::Tcp, port.number, None);
        let passthrough = tcp(scope, anything, unknown_destination(scope));
        listener.filter_chains = vec![routed(&port.number.to_string())];
        listener.default_filter_chain =
            Some(chain("PassthroughFilterChain", Some(FilterChainMatch::default()), passthrough));
        listener.listener_filters = vec![http_inspector()];
    } else if port.protocol == Protocol::Auto {
        listener.filter_chains = vec![routed(&format!("{}:{}", service.host, port.number))];
        listener.default_filter_chain = Some(to_service());
        listener.listener_filters = vec![http_inspector()];
    } else {
        listener.filter_chains = vec![to_service()];
    }
    listener
}
