//! The way of a connection through Envoys: listener, filter chain, TLS, and the
//! filters that look at connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::envoy::config::core::v3::{TrafficDirection, transport_socket};
use proto::envoy::config::listener::v3::{FilterChain, Listener, filter};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use serde_json::Value;

use super::connection::{Connection, Payload, Tls};
use super::explanation::{Refusal, Trail, Way};
use super::listener::{self, INBOUND, OUTBOUND};
use super::message::{kind, unpack};
use super::proxy::{Proxy, object};
use super::rbac::Facts;
use super::tri::Tri;
use super::{End, Peer, capture, cluster, filter as filters, matching};

const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
/// More Envoys than that are a loop.
const LONGEST: usize = 6;

/// How a connection came to an Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// From the client itself.
    First,
    /// From an Envoy that forwards requests.
    Requests(Retries),
    /// From an Envoy that forwards bytes.
    Bytes,
}

/// What an Envoy tries again, which its log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retries {
    /// Connections that do not come about.
    pub(super) connect: bool,
    /// Those that are closed before there is an answer.
    pub(super) reset: bool,
}

/// A walk.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) find: &'a dyn Fn(IpAddr) -> Peer<'a>,
}

/// An Envoy on the way, with the connection that came to it.
#[derive(Clone, Debug)]
pub(super) struct Hop<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) is_inbound: bool,
    pub(super) via: Via,
    /// Without the TLS that ended here.
    pub(super) connection: Connection,
    /// TLS that ended here.
    pub(super) ended: Option<Tls>,
    /// Server name that was seen.
    pub(super) name: String,
    /// What network filters said of the connection.
    pub(super) metadata: BTreeMap<String, Value>,
}

/// How an Envoy says no.
#[derive(Clone, Copy, Debug)]
pub(super) enum No {
    /// With an answer.
    Answer(u16, &'static str),
    /// By closing the connection, with that flag in its log.
    Close(&'static str),
    /// TLS does not come about.
    Tls,
}

impl<'a> Walk<'a> {
    /// A connection of the proxy's own workload, which is redirected.
    pub(super) fn leave(self, proxy: &'a Proxy, connection: Connection, trail: Trail) -> Way {
        let (ip, port) = (connection.destination, connection.port);
        if proxy.interception == "NONE" {
            let bound = ip.and_then(|ip| listener::by_destination(proxy, Some(ip), port, true));
            return match bound {
                Some(listener) => self.enter(proxy, listener, connection, Via::First, trail),
                None => self.uncaptured(proxy, "its interception mode is NONE", connection, trail),
            };
        }
        let Some(catch_all) = listener::by_name(proxy, OUTBOUND) else {
            let why = "there is no listener virtualOutbound, to which connections are redirected: has istiod sent any?";
            return self.no(
                proxy,
                Via::First,
                trail,
                "listener",
                No::Close("-"),
                Refusal {
                    text: why.into(),
                    change: format!("look at `istioctl proxy-status {}`", proxy.name),
                    ..Refusal::default()
                },
            );
        };
        let own = if catch_all.use_original_dst == Some(true) {
            listener::by_destination(proxy, ip, port, false)
        } else {
            None
        };
        self.enter(proxy, own.unwrap_or(catch_all), connection, Via::First, trail)
    }

    /// A connection of the proxy's own workload that does not come to its Envoy.
    pub(super) fn uncaptured(
        self,
        proxy: &Proxy,
        why: &str,
        connection: Connection,
        mut trail: Trail,
    ) -> Way {
        trail.pass(&proxy.name, "redirection", format!("not to Envoy: {why}"));
        let is_own =
            connection.destination.is_some_and(|ip| ip.is_loopback() || proxy.addresses.contains(&ip));
        if is_own {
            return trail.end(arrival(&proxy.name, &connection));
        }
        self.reach(connection, Via::First, trail)
    }

    /// A connection goes over the network to whoever has its address.
    pub(super) fn reach(self, connection: Connection, via: Via, mut trail: Trail) -> Way {
        let Some(ip) = connection.destination else {
            let end = arrival("an address outside", &connection);
            return trail.end(end);
        };
        match (self.find)(ip) {
            Peer::Proxy(peer) => self.arrive(peer, connection, via, trail),
            Peer::Bare(name) if is_mutual(&connection) => {
                let text = format!("{name} has no sidecar that would end the mesh's mutual TLS");
                let change = format!(
                    "inject a sidecar into {name}, or set tls.mode DISABLE in a DestinationRule for it"
                );
                let refusal = Refusal { text, change, ..Refusal::default() };
                self.no_at("", via, trail, "TLS", No::Tls, refusal)
            }
            Peer::Bare(name) => {
                trail.pass(name, "workload", "has no sidecar");
                trail.end(arrival(name, &connection))
            }
            Peer::Silent(name, why) => {
                trail.unsure(name, "inbound", format!("its Envoy could not be asked: {why}"));
                trail.end(arrival(name, &connection))
            }
            Peer::Outside => {
                let target = connection.target();
                trail.end(arrival(&target, &connection))
            }
        }
    }

    /// A connection comes to a workload with an Envoy.
    pub(super) fn arrive(self, proxy: &'a Proxy, connection: Connection, via: Via, mut trail: Trail) -> Way {
        let port = connection.port;
        if proxy.is_router || proxy.interception == "NONE" {
            return match listener::by_destination(proxy, connection.destination, port, true) {
                Some(listener) => self.enter(proxy, listener, connection, via, trail),
                None if proxy.is_router => {
                    let text = format!("nothing listens at port {port}");
                    let change = "add a server with that port to a Gateway that selects it (its target port, where the service has another)";
                    let refusal = Refusal { text, change: change.into(), ..Refusal::default() };
                    self.no(proxy, via, trail, "listener", No::Tls, refusal)
                }
                None => trail.end(arrival(&proxy.name, &connection)),
            };
        }
        if let Some(why) = capture::inbound(proxy, port) {
            trail.pass(&proxy.name, "redirection", format!("not to Envoy: {why}"));
            if is_mutual(&connection) {
                let refusal = Refusal {
                    text: format!("port {port} is not redirected to the sidecar, which would end the mesh's mutual TLS"),
                    change: "set tls.mode DISABLE for that port in a DestinationRule, or let the sidecar take the port".into(),
                    ..Refusal::default()
                };
                return self.no(proxy, via, trail, "TLS", No::Tls, refusal);
            }
            return trail.end(arrival(&proxy.name, &connection));
        }
        match listener::by_name(proxy, INBOUND) {
            Some(listener) => self.enter(proxy, listener, connection, via, trail),
            None => trail.give_up(format!("{} has no listener virtualInbound", proxy.name)),
        }
    }

    /// A connection is taken by a listener.
    fn enter(
        self,
        proxy: &'a Proxy,
        listener: &'a Listener,
        connection: Connection,
        via: Via,
        mut trail: Trail,
    ) -> Way {
        trail.depth += 1;
        if trail.depth > LONGEST {
            return trail.give_up("the request goes in a circle".into());
        }
        let is_inbound = listener.traffic_direction() == TrafficDirection::Inbound;
        let step =
            trail.pass(&proxy.name, "listener", format!("{} takes {}", shown(listener), connection.target()));
        step.object = object(listener.metadata.as_ref());
        if listener.filter_chain_matcher.is_some() {
            return trail.give_up(format!("listener {} chooses by a tree of matchers", listener.name));
        }
        let seen = listener::inspect(listener, &connection);
        let Some(chain) = listener::chain(listener, &connection, &seen) else {
            let refusal = no_chain(listener, &connection, is_inbound);
            return self.no(proxy, via, trail, "filter chain", No::Close("NR"), refusal);
        };
        let name = if chain.name.is_empty() { String::new() } else { format!("{} ", chain.name) };
        let step = trail.pass(&proxy.name, "filter chain", format!("{name}({})", listener::show(chain)));
        step.object = object(chain.metadata.as_ref());
        let hop = Hop {
            proxy,
            is_inbound,
            via,
            connection,
            ended: None,
            name: seen.name,
            metadata: BTreeMap::new(),
        };
        match self.end_tls(hop, chain, &mut trail) {
            Ok(hop) => self.filters(hop, chain, trail),
            Err(refusal) => self.no(proxy, via, trail, "TLS", No::Tls, *refusal),
        }
    }

    /// Ends TLS, if the chain does.
    fn end_tls(
        self,
        mut hop: Hop<'a>,
        chain: &FilterChain,
        trail: &mut Trail,
    ) -> Result<Hop<'a>, Box<Refusal>> {
        let name = &hop.proxy.name;
        let Some(transport_socket::ConfigType::TypedConfig(any)) =
            chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref())
        else {
            return Ok(hop);
        };
        let Some(context) = unpack::<DownstreamTlsContext>(any) else {
            if !kind(any).ends_with(".RawBuffer") {
                trail.unsure(name, "transport", kind(any));
            }
            return Ok(hop);
        };
        let common = context.common_tls_context.unwrap_or_default();
        let is_mutual = context.require_client_certificate.unwrap_or(false);
        if let Some(tls) = hop.connection.tls.take() {
            let own = hop.proxy.identity.as_deref();
            let fits = own
                .is_none_or(|own| tls.wanted.is_empty() || tls.wanted.iter().any(|name| is_named(name, own)));
            if !fits {
                return Err(Box::new(Refusal {
                    text: format!("the client wants {}, the server is {}", tls.wanted.join(" or "), own.unwrap_or("unknown")),
                    change: "make subjectAltNames of the client's DestinationRule or ServiceEntry name the server's identity, or remove them".into(),
                    ..Refusal::default()
                }));
            }
            if is_mutual && tls.identity.is_none() {
                return Err(Box::new(Refusal {
                    text: "the server wants a certificate of the client, which sends none".into(),
                    change: "set tls.mode ISTIO_MUTUAL (or MUTUAL) in the client's DestinationRule".into(),
                    ..Refusal::default()
                }));
            }
            let wanted = cluster::validation(&common).map(cluster::wanted_names).unwrap_or_default();
            if let Some(identity) = tls.identity.as_ref().filter(|_| !wanted.is_empty())
                && !wanted.iter().any(|name| is_named(name, identity))
            {
                return Err(Box::new(Refusal {
                    text: format!("the client is {identity}, the server takes {}", wanted.join(" or ")),
                    change: "add the client's trust domain to trustDomainAliases of the mesh".into(),
                    ..Refusal::default()
                }));
            }
            let who = tls.identity.as_deref().unwrap_or("nobody: it has no certificate");
            let mutual = if is_mutual { "mutual TLS" } else { "TLS" };
            trail.pass(name, "TLS", format!("ends {mutual}: the client is {who}"));
            hop.ended = Some(tls);
            return Ok(hop);
        }
        match hop.connection.payload {
            Payload::Tls { name: server, protocols, mut inside } if !is_mutual => {
                trail.pass(name, "TLS", "ends the client's TLS");
                let offered = &common.alpn_protocols;
                inside.is_http2 =
                    offered.iter().find(|own| protocols.contains(own)).is_some_and(|own| own == "h2");
                hop.ended = Some(Tls { name: server, protocols, identity: None, wanted: Vec::new() });
                hop.connection.payload = Payload::Http(inside);
                Ok(hop)
            }
            Payload::Tls { .. } => Err(Box::new(Refusal {
                text: "the server wants a certificate of the mesh, which the client's own TLS does not have"
                    .into(),
                change: "call it over http from a pod with a sidecar, whose Envoy adds mutual TLS".into(),
                ..Refusal::default()
            })),
            _ => Err(Box::new(Refusal {
                text: "the server wants TLS, the client speaks plaintext".into(),
                change: PLAINTEXT.into(),
                ..Refusal::default()
            })),
        }
    }

    /// The connection passes the filters of its chain.
    fn filters(self, mut hop: Hop<'a>, chain: &FilterChain, mut trail: Trail) -> Way {
        let name = hop.proxy.name.clone();
        let mut asked_cluster = None;
        for own in &chain.filters {
            let any = match &own.config_type {
                Some(filter::ConfigType::TypedConfig(any)) => Some(any),
                Some(filter::ConfigType::ConfigDiscovery(_)) => hop.proxy.extensions.get(&own.name),
                None => None,
            };
            let Some(any) = any else {
                trail.unsure(&name, "filter", format!("{}: its settings are not known", own.name));
                continue;
            };
            if let Some(manager) = unpack::<HttpConnectionManager>(any) {
                return self.requests(hop, &manager, trail);
            }
            if let Some(proxy) = unpack::<TcpProxy>(any) {
                return self.bytes(&hop, &proxy, asked_cluster, trail);
            }
            if let Some(config) = unpack::<NetworkRbac>(any) {
                let rules = filters::Rules {
                    rules: config.rules.as_ref(),
                    shadow: config.shadow_rules.as_ref(),
                    prefix: &config.shadow_rules_stat_prefix,
                };
                match filters::policies(&rules, facts(&hop, &hop.metadata), &name, &mut trail) {
                    Ok(marks) => filters::mark(&mut hop.metadata, NETWORK_RBAC, marks),
                    Err(refusal) => {
                        return self.no(hop.proxy, hop.via, trail, "policy", No::Close("-"), *refusal);
                    }
                }
                continue;
            }
            let full = kind(any);
            match filters::network(&full, &own.name) {
                filters::Known::Harmless => {}
                filters::Known::Names => asked_cluster = Some(hop.name.clone()),
                filters::Known::Asks => {
                    let marked = filters::is_asked_network(any, &hop.metadata);
                    if marked != Tri::No {
                        trail.unsure(
                            &name,
                            "filter",
                            format!("{}: asks {}", own.name, filters::asks_network(any)),
                        );
                    }
                }
                filters::Known::Ends => {
                    return trail.give_up(format!("{} ({full}) handles the connection itself", own.name));
                }
                filters::Known::Unknown => {
                    trail.unsure(&name, "filter", format!("{} ({full})", own.name));
                }
            }
        }
        trail.give_up(format!(
            "filter chain {} of {name} has no filter at its end that this program knows",
            chain.name
        ))
    }

    /// Refuses, in the way that the client sees it.
    pub(super) fn no(
        self,
        proxy: &Proxy,
        via: Via,
        trail: Trail,
        what: &'static str,
        no: No,
        refusal: Refusal,
    ) -> Way {
        self.no_at(&proxy.name, via, trail, what, no, refusal)
    }

    pub(super) fn no_at(
        self,
        proxy: &str,
        via: Via,
        trail: Trail,
        what: &'static str,
        no: No,
        refusal: Refusal,
    ) -> Way {
        let (status, flag) = match (no, via) {
            (No::Answer(status, flag), Via::First) => (Some(status), flag),
            (No::Answer(status, _), _) => (Some(status), "-"),
            (No::Close(flag), Via::First) => (None, flag),
            (No::Tls, Via::First) => (None, "-"),
            (No::Close(_), Via::Requests(retries)) => {
                (Some(503), if retries.reset { "URX,UC" } else { "UC" })
            }
            (No::Tls, Via::Requests(retries)) => (Some(503), if retries.connect { "URX,UF" } else { "UF" }),
            (No::Close(_), Via::Bytes) => (None, "-"),
            (No::Tls, Via::Bytes) => (None, "UF"),
        };
        trail.refuse(proxy, what, Refusal { status, flag, ..refusal })
    }
}

const PLAINTEXT: &str = "let the client speak mutual TLS: give it a sidecar, remove tls.mode DISABLE from the DestinationRule that it uses; or set mtls.mode PERMISSIVE in the server's PeerAuthentication";

/// Whether the client proves who it is.
fn is_mutual(connection: &Connection) -> bool {
    connection.tls.as_ref().is_some_and(|tls| tls.identity.is_some())
}

/// Whether a name in words, perhaps with a star at an end, is the identity.
fn is_named(wanted: &str, identity: &str) -> bool {
    if let Some(pattern) = wanted.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        return matching::regex(pattern, identity) == Tri::Yes;
    }
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(end), None) => identity.ends_with(end),
        (None, Some(start)) => identity.starts_with(start),
        _ => wanted == identity,
    }
}

/// What policies look at, for a connection.
pub(super) fn facts<'a>(hop: &'a Hop<'_>, metadata: &'a BTreeMap<String, Value>) -> Facts<'a> {
    let connection = &hop.connection;
    Facts {
        request: None,
        destination: connection.destination,
        port: connection.port,
        name: &hop.name,
        source: connection.source,
        remote: connection.source,
        tls: hop.ended.as_ref(),
        metadata,
    }
}

fn shown(listener: &Listener) -> String {
    let address = listener::address(listener);
    if listener.name.is_empty() || listener.name.contains(&address.replace(':', "_")) {
        address
    } else {
        format!("{} ({address})", listener.name)
    }
}

fn no_chain(listener: &Listener, connection: &Connection, is_inbound: bool) -> Refusal {
    let speaks = match (&connection.tls, &connection.payload) {
        (Some(tls), _) => format!("TLS of the mesh (SNI {:?})", tls.name),
        (None, Payload::Tls { name, .. }) => format!("TLS of its own (SNI {name:?})"),
        (None, Payload::Http(_)) => "plaintext HTTP".into(),
        (None, Payload::Bytes) => "plaintext".into(),
    };
    let change = match (is_inbound, &connection.tls) {
        (true, None) => PLAINTEXT.into(),
        (true, Some(_)) => "the server's PeerAuthentication says DISABLE for this port: let the client's DestinationRule say tls.mode DISABLE too, or leave both to istiod".into(),
        (false, _) => format!("check the protocol of port {}: the name of the service's port, or its appProtocol, must be that of what is sent", connection.port),
    };
    Refusal {
        text: format!("none of {} takes {speaks} at port {}", listener.name, connection.port),
        change,
        details: listener
            .filter_chains
            .iter()
            .filter(|chain| {
                let port = chain.filter_chain_match.as_ref().and_then(|matcher| matcher.destination_port);
                port.is_none() || port == Some(connection.port.into())
            })
            .take(8)
            .map(|chain| format!("it has {} ({})", chain.name, listener::show(chain)))
            .collect(),
        ..Refusal::default()
    }
}

/// The end of a way that goes well.
pub(super) fn arrival(workload: &str, connection: &Connection) -> End {
    let request = match &connection.payload {
        Payload::Http(request) => Some(format!("{} {}{}", request.method, request.authority, request.path)),
        Payload::Tls { .. } | Payload::Bytes => None,
    };
    End::Arrives { workload: workload.to_owned(), address: connection.target(), request }
}
