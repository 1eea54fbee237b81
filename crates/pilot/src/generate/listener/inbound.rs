//! The listener for connections to the proxy's own workload.

use std::collections::BTreeMap;

use names::{ClusterName, cluster_name, port as ports};
use proto::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter};
use proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use super::chain::{
    black_hole, chain, disabled_on, http_inspector, listener_filter, matching, plain_http, tcp,
};
use super::{ANY, base, set_detection_timeout};
use crate::generate::filter::{Direction, Place, access_log};
use crate::generate::{http, route, tls};
use crate::protocol::Protocol;
use crate::scope::{Inbound, Scope};
use crate::snapshot::MtlsMode;

/// What peers of the mesh say inside TLS when HTTP follows.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What they say when bytes follow.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// Either of both.
const MESH_ANY: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// A destination of the listener: a port of the workload, or with port 0 all
/// that no service declares.
struct Target {
    /// Port that its chains match; `None` matches all.
    port: Option<u16>,
    mode: MtlsMode,
    protocol: Protocol,
    http: Vec<Filter>,
    tcp: Vec<Filter>,
    http_name: String,
    tcp_name: String,
    is_passthrough: bool,
}

pub(super) fn listener(scope: Scope<'_>) -> Listener {
    let modes = scope.modes();
    let inbound = scope.inbound();
    let mut targets = vec![passthrough(scope, None, modes.default)];
    // Ports that a policy names and no service declares have their own mode.
    for (port, mode) in &modes.ports {
        if !inbound.iter().any(|inbound| inbound.target == *port) {
            targets.push(passthrough(scope, Some(*port), *mode));
        }
    }
    for inbound in &inbound {
        targets.push(of_service(scope, inbound, modes.of_port(inbound.target)));
    }

    let mut listener = base("virtualInbound".into(), ANY, ports::INBOUND, TrafficDirection::Inbound);
    set_detection_timeout(scope, &mut listener);
    listener.max_connections_to_accept_per_socket_event = Some(1);
    listener.access_log = access_log::listener(scope, Direction::Inbound);
    let loops = matching(Some(ports::INBOUND), "", &[]);
    listener.filter_chains.push(chain("virtualInbound-blackhole", Some(loops), black_hole(scope)));
    let mtls = mutual_tls(scope);
    for target in &targets {
        listener.filter_chains.extend(chains(scope, target, &mtls));
    }
    listener.listener_filters = filters(&targets);
    listener
}

fn mutual_tls(scope: Scope<'_>) -> TransportSocket {
    let mesh = &scope.snapshot.mesh;
    let aliases = mesh.trust_domain_aliases.iter().map(String::as_str);
    tls::server(std::iter::once(mesh.trust_domain()).chain(aliases))
}

fn passthrough(scope: Scope<'_>, port: Option<u16>, mode: MtlsMode) -> Target {
    let cluster = cluster_name::INBOUND_PASSTHROUGH;
    let routes = route::inbound(scope, None, cluster, 0);
    let place = Place::new(Direction::Inbound, Protocol::Auto, port.unwrap_or(0), None);
    Target {
        port,
        mode,
        protocol: Protocol::Auto,
        http: vec![http::inbound(scope, place, cluster, routes)],
        tcp: tcp(scope, place, cluster),
        http_name: "virtualInbound-catchall-http".into(),
        tcp_name: "virtualInbound".into(),
        is_passthrough: true,
    }
}

fn of_service(scope: Scope<'_>, inbound: &Inbound<'_>, mode: MtlsMode) -> Target {
    let Inbound { service, port, target } = inbound;
    let cluster = ClusterName::inbound(*target).to_string();
    let name = format!("{ANY}_{target}");
    let routes = route::inbound(scope, Some(service), &cluster, port.number);
    let place = Place::new(Direction::Inbound, port.protocol, *target, Some(service));
    Target {
        port: Some(*target),
        mode,
        protocol: port.protocol,
        http: vec![http::inbound(scope, place, &format!("inbound_{name}"), routes)],
        tcp: tcp(scope, place, &cluster),
        http_name: name.clone(),
        tcp_name: name,
        is_passthrough: false,
    }
}

/// The filter chains of a target: what may come in, and how it is told apart.
fn chains(scope: Scope<'_>, target: &Target, mtls: &TransportSocket) -> Vec<FilterChain> {
    let Target { port, mode, protocol, http, tcp, http_name, tcp_name, is_passthrough } = target;
    let tls = |protocols: &[&str]| matching(*port, "tls", protocols);
    let raw = || matching(*port, "raw_buffer", &[]);
    let plain = |name: &str, matcher: FilterChainMatch, filters: &[Filter]| {
        chain(name, Some(matcher), filters.to_vec())
    };
    let secure = |name: &str, matcher: FilterChainMatch, filters: &[Filter]| FilterChain {
        transport_socket: Some(mtls.clone()),
        ..plain(name, matcher, filters)
    };
    match (mode, protocol) {
        (MtlsMode::Strict, Protocol::Auto) => {
            vec![secure(http_name, tls(&MESH_HTTP), http), secure(tcp_name, tls(&[]), tcp)]
        }
        (MtlsMode::Strict, protocol) if protocol.is_http() => vec![secure(http_name, tls(&[]), http)],
        (MtlsMode::Strict, _) => vec![secure(tcp_name, tls(&[]), tcp)],
        (MtlsMode::Permissive, Protocol::Auto) => {
            let mut chains = vec![
                secure(http_name, tls(&MESH_HTTP), http),
                plain(http_name, plain_http(scope, *port), http),
                secure(tcp_name, tls(&MESH_TCP), tcp),
                plain(tcp_name, raw(), tcp),
                plain(tcp_name, tls(&[]), tcp),
            ];
            if !is_passthrough {
                chains.swap(3, 4);
            }
            chains
        }
        (MtlsMode::Permissive, protocol) if protocol.is_http() => {
            vec![secure(http_name, tls(&MESH_ANY), http), plain(http_name, raw(), http)]
        }
        (MtlsMode::Permissive, _) => vec![
            secure(tcp_name, tls(&MESH_ANY), tcp),
            plain(tcp_name, tls(&[]), tcp),
            plain(tcp_name, raw(), tcp),
        ],
        (MtlsMode::Disable, Protocol::Auto) => {
            vec![plain(http_name, plain_http(scope, *port), http), plain(tcp_name, raw(), tcp)]
        }
        (MtlsMode::Disable, protocol) if protocol.is_http() => vec![plain(http_name, raw(), http)],
        (MtlsMode::Disable, _) => vec![plain(tcp_name, raw(), tcp)],
    }
}

/// The inspectors, each switched off where no chain needs it: looking at a
/// server-first protocol would wait for bytes that never come.
fn filters(targets: &[Target]) -> Vec<ListenerFilter> {
    let mut filters = vec![listener_filter("envoy.filters.listener.original_dst", &OriginalDst::default())];
    let needs_tls = |target: &Target| target.mode != MtlsMode::Disable;
    let needs_http = |target: &Target| target.protocol == Protocol::Auto && target.mode != MtlsMode::Strict;
    let tls = TlsInspector { initial_read_buffer_size: Some(512), ..TlsInspector::default() };
    let tls = listener_filter("envoy.filters.listener.tls_inspector", &tls);
    for (mut filter, needs) in [
        (tls, &needs_tls as &dyn Fn(&Target) -> bool),
        (http_inspector(), &needs_http as &dyn Fn(&Target) -> bool),
    ] {
        if !targets.iter().any(needs) {
            continue;
        }
        let mut off: BTreeMap<u16, ()> = targets
            .iter()
            .filter(|target| !needs(target))
            .map(|target| (target.port.unwrap_or(0), ()))
            .collect();
        off.insert(ports::INBOUND, ());
        filter.filter_disabled = Some(disabled_on(off.into_keys()));
        filters.push(filter);
    }
    filters
}
