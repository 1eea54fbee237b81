//! Listeners for connections to the proxy's own workload.

use names::{ClusterName, cluster_name, port as ports};
use proto::envoy::config::core::v3::{Metadata, TrafficDirection, TransportSocket};
use proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use proto::istio::networking::v1alpha3::ServerTlsSettings;

use super::chain::{PLAIN_HTTP, black_hole, chain, forward, http as with_extensions, matching, proxy, tcp};
use super::{base, bind, gateway, inspect, port_of, set_detection_timeout};
use crate::generate::cluster::stat;
use crate::generate::filter::{Direction, Place, access_log};
use crate::generate::message::{api_path, metadata, structure};
use crate::generate::{http, route, tls};
use crate::protocol::Protocol;
use crate::proxy::Interception;
use crate::scope::{Inbound, Scope};
use crate::snapshot::MtlsMode;
use crate::snapshot::authn::Modes;

/// What peers of the mesh say inside TLS when HTTP follows.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What they say when bytes follow.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// Either of both.
const MESH_ANY: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// A destination: a port of the workload, or all ports that nobody declares.
struct Target {
    /// Port that its chains match; `None` matches all.
    port: Option<u16>,
    mode: MtlsMode,
    protocol: Protocol,
    http: Vec<Filter>,
    tcp: Vec<Filter>,
    http_name: String,
    tcp_name: String,
    /// Object that it comes from.
    metadata: Option<Metadata>,
}

/// The listener that takes what is redirected, and those of the Sidecar that
/// take connections themselves.
pub(super) fn listeners(scope: Scope<'_>) -> Vec<Listener> {
    let redirects = scope.proxy.interception != Interception::None;
    let modes = scope.modes();
    let inbound = scope.inbound();
    let mtls = tls::server(scope);
    let mut chains = if redirects { passthrough_chains(scope, &modes, &inbound, &mtls) } else { Vec::new() };
    let mut own = Vec::new();
    for inbound in inbound.iter().filter(|inbound| can_bind(scope, inbound)) {
        let binds = binds(scope, inbound);
        let mode = modes.of_port(inbound.target);
        let tls = ended_tls(scope, inbound);
        // What is inside is what the workload gets.
        let port = inbound.port.protocol;
        let protocol = if tls.is_some() { port.after_tls() } else { port };
        let target = of_port(scope, inbound, protocol, mode, &binds);
        // Mutual TLS of the mesh goes first.
        let new = match tls.filter(|_| mode == MtlsMode::Disable) {
            Some(settings) => vec![ending(&target, gateway::tls::ends(scope, settings))],
            None => self::chains(&target, &mtls),
        };
        if binds_to_port(scope, inbound) {
            let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
            own.push(listener(scope, target.tcp_name, &binds, inbound.target, true, new));
        } else {
            chains.extend(new);
        }
    }
    if !redirects {
        return own;
    }
    let port = port_of(scope.snapshot.mesh.proxy_inbound_listen_port, ports::INBOUND);
    let any = super::wildcards(scope);
    let mut listeners = vec![listener(scope, "virtualInbound".into(), any, port, false, chains)];
    listeners.append(&mut own);
    listeners
}

fn listener(
    scope: Scope<'_>,
    name: String,
    binds: &[&str],
    port: u16,
    binds_to_port: bool,
    chains: Vec<FilterChain>,
) -> Listener {
    let binds =
        if scope.snapshot.settings.features.dual_stack { binds } else { &binds[..1.min(binds.len())] };
    let mut listener = base(scope, name, binds, port, TrafficDirection::Inbound);
    set_detection_timeout(scope, &mut listener);
    let is_transparent = !binds_to_port && scope.proxy.interception == Interception::Tproxy;
    listener.transparent = is_transparent.then_some(true);
    listener.max_connections_to_accept_per_socket_event = Some(1);
    listener.access_log = access_log::listener(scope, Direction::Inbound);
    listener.listener_filters = inspect::filters(scope, &chains, binds_to_port);
    listener.filter_chains = chains;
    listener
}

/// Whether a listener takes connections itself: what the Sidecar says, else
/// where nothing is redirected.
fn binds_to_port(scope: Scope<'_>, inbound: &Inbound<'_>) -> bool {
    let own = inbound.ingress.and_then(|ingress| ingress.binds_to_port);
    own.unwrap_or(scope.proxy.interception == Interception::None)
}

/// Addresses that a port is known by; the first is a part of its name.
fn binds(scope: Scope<'_>, inbound: &Inbound<'_>) -> Vec<String> {
    match inbound.ingress.map(|ingress| &ingress.spec.bind) {
        Some(bind) if !bind.is_empty() => vec![bind.clone()],
        Some(_) => bind::own(scope.proxy),
        None => bind::any(scope.proxy).iter().map(|&ip| ip.to_owned()).collect(),
    }
}

/// Whether the proxy may listen there; its own ports are taken.
fn can_bind(scope: Scope<'_>, inbound: &Inbound<'_>) -> bool {
    let is_low = inbound.target < 1024 && binds_to_port(scope, inbound);
    if is_low && super::is_unprivileged(scope.proxy) {
        return false;
    }
    let any = bind::any(scope.proxy).first();
    match inbound.ingress.map(|ingress| ingress.spec.bind.as_str()) {
        None => !super::is_reserved(scope, inbound.target),
        Some("") if !inbound.port.protocol.is_http() => true,
        Some(bind) if !bind.is_empty() && Some(&bind) != any => true,
        Some(_) => !super::is_bootstrapped(scope.proxy, inbound.target),
    }
}

/// Chains for connections that come back for ever, and for those to ports that
/// nobody declares; one that a policy names has a mode of its own.
fn passthrough_chains(
    scope: Scope<'_>,
    modes: &Modes,
    inbound: &[Inbound<'_>],
    mtls: &TransportSocket,
) -> Vec<FilterChain> {
    let port = port_of(scope.snapshot.mesh.proxy_inbound_listen_port, ports::INBOUND);
    let loops = matching(Some(port), "", &[]);
    let loops = chain("virtualInbound-blackhole", Some(loops), black_hole(scope, Direction::Inbound));
    let is_declared = |port: u16| inbound.iter().any(|inbound| inbound.target == port);
    let own = modes.ports.iter().filter(|(own, _)| !is_declared(**own) && **own != port && **own != 0);
    let own = own.map(|(port, mode)| passthrough(scope, Some(*port), *mode));
    let targets = [passthrough(scope, None, modes.default)].into_iter().chain(own);
    [loops].into_iter().chain(targets.flat_map(|target| chains(&target, mtls))).collect()
}

fn passthrough(scope: Scope<'_>, port: Option<u16>, mode: MtlsMode) -> Target {
    let cluster = cluster_name::INBOUND_PASSTHROUGH;
    let routes = route::inbound(scope, "", Protocol::Auto, cluster, 0);
    let place = Place::new(Direction::Inbound, Protocol::Auto, port.unwrap_or(0), None);
    Target {
        port,
        mode,
        protocol: Protocol::Auto,
        http: with_extensions(scope, place, http::inbound(scope, place, cluster, routes)),
        tcp: undeclared_bytes(scope, place, cluster),
        http_name: "virtualInbound-catchall-http".into(),
        tcp_name: "virtualInbound".into(),
        metadata: None,
    }
}

/// TLS that an ingress listener ends itself.
fn ended_tls<'a>(scope: Scope<'a>, inbound: &Inbound<'a>) -> Option<&'a ServerTlsSettings> {
    let settings = inbound.ingress?.spec.tls.as_ref()?;
    scope.snapshot.settings.features.tls_on_sidecar_ingress.then_some(settings)
}

/// The chain of a port that ends TLS itself.
fn ending(target: &Target, socket: TransportSocket) -> FilterChain {
    let (name, filters) = if target.protocol.is_http() {
        (&target.http_name, &target.http)
    } else {
        (&target.tcp_name, &target.tcp)
    };
    FilterChain {
        metadata: target.metadata.clone(),
        transport_socket: Some(socket),
        ..chain(name, Some(matching(target.port, "tls", &[])), filters.clone())
    }
}

fn of_port(
    scope: Scope<'_>,
    inbound: &Inbound<'_>,
    protocol: Protocol,
    mode: MtlsMode,
    binds: &[String],
) -> Target {
    let Inbound { service, port, target, ingress } = inbound;
    let cluster = ClusterName::inbound(*target).to_string();
    let name = format!("{}_{target}", binds.first().map_or("", String::as_str));
    let host = inbound.host(scope);
    let routes = route::inbound(scope, host.as_str(), protocol, &cluster, port.number);
    let service = service.map(|service| &**service).filter(|_| ingress.is_none());
    let place = Place::new(Direction::Inbound, protocol, *target, service);
    let manager = || http::inbound(scope, place, &format!("inbound_{name}"), routes);
    Target {
        port: Some(*target),
        mode,
        protocol,
        // What cannot be requests needs no handling of them.
        http: if protocol.is_tcp() { Vec::new() } else { with_extensions(scope, place, manager()) },
        tcp: if protocol.is_http() { Vec::new() } else { bytes(scope, place, inbound, &cluster) },
        http_name: name.clone(),
        tcp_name: name,
        metadata: ingress.and_then(|_| scope.sidecar()).map(|sidecar| {
            let namespace = &scope.proxy.namespace;
            let path = api_path("networking.istio.io", "sidecar", namespace, &sidecar.name);
            metadata([("istio", structure([("config", path)]))])
        }),
    }
}

/// Forwards bytes to ports that nobody declares.
fn undeclared_bytes(scope: Scope<'_>, place: Place<'_>, cluster: &str) -> Vec<Filter> {
    let pattern = &scope.snapshot.mesh.inbound_cluster_stat_name;
    if pattern.is_empty() {
        return tcp(scope, place, cluster);
    }
    let mut proxy = proxy(scope, cluster);
    proxy.stat_prefix = stat::of_undeclared(pattern);
    forward(scope, place, proxy, cluster)
}

/// Forwards bytes to the workload; statistics are named by the mesh's pattern,
/// if it has one (`inboundClusterStatName`).
fn bytes(scope: Scope<'_>, place: Place<'_>, inbound: &Inbound<'_>, cluster: &str) -> Vec<Filter> {
    let pattern = &scope.snapshot.mesh.inbound_cluster_stat_name;
    let mut proxy = proxy(scope, cluster);
    if let (false, Some(service)) = (pattern.is_empty(), inbound.service) {
        proxy.stat_prefix = stat::by_pattern(pattern, service, inbound.port, "", inbound.target);
    }
    forward(scope, place, proxy, cluster)
}

/// The filter chains of a target: what may come in, and how it is told apart.
fn chains(target: &Target, mtls: &TransportSocket) -> Vec<FilterChain> {
    let Target { port, mode, protocol, http, tcp, http_name, tcp_name, metadata } = target;
    let matches = |transport: &str, protocols: &[&str]| matching(*port, transport, protocols);
    let tls = |protocols: &[&str]| matches("tls", protocols);
    let raw = |protocols: &[&str]| matches("raw_buffer", protocols);
    let plain = |name: &str, matcher: FilterChainMatch, filters: &[Filter]| FilterChain {
        metadata: metadata.clone(),
        ..chain(name, Some(matcher), filters.to_vec())
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
        (MtlsMode::Permissive, Protocol::Auto) => vec![
            secure(http_name, tls(&MESH_HTTP), http),
            plain(http_name, raw(PLAIN_HTTP), http),
            secure(tcp_name, tls(&MESH_TCP), tcp),
            plain(tcp_name, raw(&[]), tcp),
            plain(tcp_name, tls(&[]), tcp),
        ],
        (MtlsMode::Permissive, protocol) if protocol.is_http() => {
            vec![secure(http_name, tls(&MESH_ANY), http), plain(http_name, raw(&[]), http)]
        }
        (MtlsMode::Permissive, _) => vec![
            secure(tcp_name, tls(&MESH_ANY), tcp),
            plain(tcp_name, tls(&[]), tcp),
            plain(tcp_name, raw(&[]), tcp),
        ],
        (MtlsMode::Disable, Protocol::Auto) => {
            vec![plain(http_name, raw(PLAIN_HTTP), http), plain(tcp_name, raw(&[]), tcp)]
        }
        (MtlsMode::Disable, protocol) if protocol.is_http() => vec![plain(http_name, raw(&[]), http)],
        (MtlsMode::Disable, _) => vec![plain(tcp_name, raw(&[]), tcp)],
    }
}
