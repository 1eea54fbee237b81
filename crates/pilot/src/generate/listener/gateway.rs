//! Listeners of a gateway: one for each port and address of its servers.

mod bytes;
pub(super) mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::envoy::config::core::v3::{TrafficDirection, UdpSocketConfig, address, socket_address};
use proto::envoy::config::listener::v3::{Listener, QuicProtocolOptions, UdpListenerConfig};
use proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;

use self::bytes::Names;
use super::draft::{Draft, merge};
use super::{base, bind, chain, is_bootstrapped, is_unprivileged};
use crate::generate::filter::{Direction, Place, access_log};
use crate::generate::gateway::quic::Quic;
use crate::generate::gateway::{Topology, servers};
use crate::generate::http;
use crate::scope::Scope;
use crate::snapshot::gateway::is_socket;
use crate::snapshot::gateway::merge::{Bound, Group, routes_name};

/// Ports below are for privileged processes.
const PRIVILEGED: u16 = 1024;

/// All listeners of a gateway.
pub(super) fn listeners(scope: Scope<'_>) -> Vec<Listener> {
    let topology = Topology::of(scope);
    let quic = Quic::of(scope);
    // Names of TLS that routes of VirtualServices have taken, by port.
    let mut names: BTreeMap<u16, Names> = BTreeMap::new();
    let mut made: BTreeMap<String, (Listener, Vec<Draft>)> = BTreeMap::new();
    for group in &servers(scope).groups {
        let port = group.key.port;
        let cannot_open = port < PRIVILEGED && is_unprivileged(scope.proxy) && !is_socket(&group.key.bind);
        if cannot_open || is_bootstrapped(scope.proxy, port) {
            continue;
        }
        let binds = binds(scope, &group.key.bind);
        let Some(main) = binds.first() else { continue };
        let name = format!("{main}_{port}");
        let drafts = drafts(scope, group, &name, topology, names.entry(port).or_default());
        let (_, known) =
            made.entry(name.clone()).or_insert_with(|| (listener(scope, name, &binds, port), Vec::new()));
        // What an older server takes, a later one does not.
        merge(known, drafts);
        let name = format!("udp_{main}_{port}");
        let drafts = over_quic(scope, group, &name, topology, &quic);
        if !drafts.is_empty() {
            let (_, known) = made
                .entry(name.clone())
                .or_insert_with(|| (datagrams(scope, name, &binds, port), Vec::new()));
            merge(known, drafts);
        }
    }
    let written = made.into_values().map(|(listener, drafts)| write(listener, drafts, topology));
    written.filter(|listener| !listener.filter_chains.is_empty()).collect()
}

/// What a server is bound to, the main address first; nothing when it is no address.
fn binds<'a>(scope: Scope<'_>, bind: &'a str) -> Vec<&'a str> {
    if bind.is_empty() {
        let any = bind::any(scope.proxy);
        let count = if scope.snapshot.settings.features.dual_stack { any.len() } else { 1 };
        return any.iter().take(count).copied().collect();
    }
    if is_socket(bind) || bind.parse::<IpAddr>().is_ok() { vec![bind] } else { Vec::new() }
}

fn listener(scope: Scope<'_>, name: String, binds: &[&str], port: u16) -> Listener {
    Listener {
        max_connections_to_accept_per_socket_event: Some(1),
        access_log: access_log::listener(scope, Direction::Gateway),
        ..base(scope, name, binds, port, TrafficDirection::Outbound)
    }
}

/// The filter chains of the servers of one port, protocol and address.
fn drafts(
    scope: Scope<'_>,
    group: &Group<'_>,
    listener: &str,
    topology: Topology,
    names: &mut Names,
) -> Vec<Draft> {
    let port = group.key.port;
    let stat_prefix = format!("outbound_{listener}");
    if group.key.protocol.is_http() {
        let place = Place::new(Direction::Gateway, group.key.protocol, port, None);
        let manager = http::gateway(scope, place, &stat_prefix, "", &group.routes, topology, false);
        return vec![Draft { filters: chain::http(scope, place, manager), ..Draft::default() }];
    }
    let mut drafts = Vec::new();
    for bound in &group.servers {
        let Bound { server, .. } = bound;
        let routes = routes_name(*bound, port).filter(|_| server.tls.is_some());
        let Some(routes) = routes else {
            drafts.extend(bytes::drafts(scope, *bound, names));
            continue;
        };
        let place = Place::new(Direction::Gateway, server.protocol, port, None);
        let manager = http::gateway(scope, place, &stat_prefix, &server.name, &routes, topology, false);
        drafts.push(Draft {
            names: server.server_names(),
            socket: tls::socket(scope, server),
            filters: chain::http(scope, place, manager),
            ..Draft::default()
        });
    }
    drafts
}

/// The same servers over QUIC, as far as they are open for it.
fn over_quic(
    scope: Scope<'_>,
    group: &Group<'_>,
    listener: &str,
    topology: Topology,
    quic: &Quic,
) -> Vec<Draft> {
    let port = group.key.port;
    let mut drafts = Vec::new();
    for bound in group.servers.iter().filter(|bound| quic.takes(bound.server)) {
        let server = bound.server;
        let (Some(routes), Some(settings)) = (routes_name(*bound, port), &server.tls) else { continue };
        let place = Place::new(Direction::Gateway, server.protocol, port, None);
        let stat_prefix = format!("outbound_{listener}");
        let manager = http::gateway(scope, place, &stat_prefix, &server.name, &routes, topology, true);
        drafts.push(Draft {
            names: server.server_names(),
            socket: Some(tls::quic(scope, settings)),
            filters: vec![manager],
            ..Draft::default()
        });
    }
    drafts
}

/// A listener for QUIC.
fn datagrams(scope: Scope<'_>, name: String, binds: &[&str], port: u16) -> Listener {
    let mut listener = Listener {
        udp_listener_config: Some(UdpListenerConfig {
            quic_options: Some(QuicProtocolOptions::default()),
            downstream_socket_config: Some(UdpSocketConfig::default()),
            ..UdpListenerConfig::default()
        }),
        // There are no connections of the kernel's to balance.
        connection_balance_config: None,
        ..listener(scope, name, binds, port)
    };
    let further = listener.additional_addresses.iter_mut().map(|further| &mut further.address);
    for address in std::iter::once(&mut listener.address).chain(further).flatten() {
        if let Some(address::Address::SocketAddress(socket)) = &mut address.address {
            socket.set_protocol(socket_address::Protocol::Udp);
        }
    }
    listener
}

fn write(mut listener: Listener, drafts: Vec<Draft>, topology: Topology) -> Listener {
    if listener.udp_listener_config.is_some() {
        listener.filter_chains = drafts.into_iter().map(Draft::write).collect();
        return listener;
    }
    if topology.has_proxy_protocol {
        let filter =
            chain::listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default());
        listener.listener_filters.push(filter);
    }
    if drafts.iter().any(|draft| !draft.names.is_empty() || draft.socket.is_some()) {
        listener.listener_filters.push(chain::tls_inspector());
    }
    listener.filter_chains = drafts.into_iter().map(Draft::write).collect();
    listener
}

#[cfg(test)]
mod tests;
