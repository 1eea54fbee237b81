//! Where an Envoy sends a request or a connection: route action, cluster,
//! endpoint.

use std::net::SocketAddr;

use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::envoy::config::route::v3::weighted_cluster::cluster_weight;
use proto::envoy::config::route::v3::{Route, RouteAction, VirtualHost, virtual_host};
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpClusters;

use super::cluster::{self, Discovery, Endpoint, Socket};
use super::connection::{Connection, Payload, Tls};
use super::explanation::{Refusal, Trail, Way};
use super::http::Passage;
use super::proxy::{Proxy, object};
use super::request::{Header, Request};
use super::rewrite::{location, rewrite, settings};
use super::route::{self, Found};
use super::walk::{Hop, No, Retries, Via, Walk, arrival};

const BLACK_HOLE: &str = "BlackHoleCluster";
/// The virtual host of requests that nobody takes, where none may leave the mesh.
const BLOCKED: &str = "block_all";
const REGISTRY_ONLY: &str = "add a ServiceEntry for the host, or set outboundTrafficPolicy ALLOW_ANY in the mesh's settings or a Sidecar";
/// So many endpoints are followed, the others are told to be alike.
const FOLLOWED: usize = 20;

/// What goes to a cluster.
struct Sent {
    payload: Payload,
    /// What is offered in TLS, where routes say it.
    protocols: Option<Vec<String>>,
    via: Via,
}

/// Status and flag of an answer.
pub(super) type Status = (u16, &'static str);

impl<'a> Walk<'a> {
    /// The request is routed.
    pub(super) fn route(self, passage: &Passage<'a, '_>, mut trail: Trail) -> Way {
        let name = passage.hop.proxy.name.clone();
        let no = |trail: Trail, status: Status, refusal: Refusal| {
            self.answer_no(&passage.hop, &passage.request, trail, "route", status, refusal)
        };
        let (host, route) = match passage.found() {
            Found::Route(host, route) => (host, route),
            Found::Unknown(why) => return trail.give_up(why),
            Found::NoHost => {
                let refusal = Refusal {
                    text: format!(
                        "no virtual host of {} has {}",
                        passage.routes.name, passage.request.authority
                    ),
                    change: no_host(&passage.hop, &passage.request),
                    ..Refusal::default()
                };
                return no(trail, (404, "NR"), refusal);
            }
            Found::NoRoute(host) => {
                let known = host.routes.iter().find_map(|route| object(route.metadata.as_ref()));
                let refusal = Refusal {
                    text: format!("virtual host {} has no route that fits", host.name),
                    change: format!(
                        "add an http route that fits (one without a match at the end takes all others) to {}",
                        known.as_deref().unwrap_or("the VirtualService of the host")
                    ),
                    object: known,
                    details: host.routes.iter().take(8).map(route::show).collect(),
                    ..Refusal::default()
                };
                return no(trail, (404, "NR"), refusal);
            }
        };
        let object = object(route.metadata.as_ref());
        if host.require_tls() != virtual_host::TlsRequirementType::None && passage.request.scheme != "https" {
            let text = format!("virtual host {} sends plaintext to https", host.name);
            return trail.answer(&name, "route", text, object, 301, "-");
        }
        let told = format!("virtual host {}, {}", host.name, route::show(route));
        match &route.action {
            Some(Action::Redirect(redirect)) => {
                let (status, location) = location(redirect, route, &passage.request);
                trail.answer(&name, "route", format!("redirects to {location}: {told}"), object, status, "-")
            }
            Some(Action::DirectResponse(direct)) => {
                let status = u16::try_from(direct.status).unwrap_or(0);
                if host.name == BLOCKED {
                    let refusal = Refusal {
                        text: format!(
                            "no service has {}, and unknown hosts are blocked (REGISTRY_ONLY)",
                            passage.request.authority
                        ),
                        change: REGISTRY_ONLY.into(),
                        ..Refusal::default()
                    };
                    return no(trail, (status, "-"), refusal);
                }
                let mut seen = status;
                let mut text = format!("answers with {status}: {told}");
                if passage.request.is_grpc() {
                    text += " (as a gRPC status)";
                    seen = 200;
                }
                trail.answer(&name, "route", text, object, seen, "-")
            }
            Some(Action::Route(action)) => {
                let step = trail.pass(&name, "route", told);
                step.object = object;
                step.details = settings(action);
                self.forward(passage, host, route, action, trail)
            }
            _ => trail.give_up(format!("{} does what this program does not know", route::show(route))),
        }
    }

    /// The route forwards to clusters.
    fn forward(
        self,
        passage: &Passage<'a, '_>,
        host: &VirtualHost,
        route: &Route,
        action: &RouteAction,
        trail: Trail,
    ) -> Way {
        let mut request = passage.request.clone();
        let routes = passage.routes;
        let original = request.clone();
        let common = |request: &mut Request| {
            request.change(&route.request_headers_to_remove, &route.request_headers_to_add);
            request.change(&host.request_headers_to_remove, &host.request_headers_to_add);
            request.change(&routes.request_headers_to_remove, &routes.request_headers_to_add);
            rewrite(action, route, &original, request);
        };
        let rules = (not_found(action), retries(action, host));
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => {
                common(&mut request);
                self.request_to(passage, name, &request, None, rules, trail)
            }
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let total: u32 = weighted.clusters.iter().filter_map(|one| one.weight).sum();
                let ways = weighted.clusters.iter().filter(|one| one.weight.unwrap_or(0) > 0).map(|one| {
                    let part = f64::from(one.weight.unwrap_or(0)) / f64::from(total.max(1));
                    let mut request = passage.request.clone();
                    request.change(&one.request_headers_to_remove, &one.request_headers_to_add);
                    common(&mut request);
                    if let Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) =
                        &one.host_rewrite_specifier
                    {
                        request.authority.clone_from(host);
                    }
                    let announced =
                        passage.announcer().and_then(|name| one.typed_per_filter_config.get(name));
                    let trail = trail.fork(part, format!("to {}", one.name));
                    self.request_to(passage, &one.name, &request, announced, rules, trail)
                });
                let ways = ways.collect();
                trail.split(ways)
            }
            Some(ClusterSpecifier::ClusterHeader(name)) => match passage.request.header(name) {
                Header::Value(cluster) => {
                    common(&mut request);
                    self.request_to(passage, &cluster, &request, None, rules, trail)
                }
                Header::Unknown => {
                    trail.give_up(format!("the cluster is in header {name}, which Envoy makes"))
                }
                Header::Missing => {
                    let refusal = Refusal {
                        text: format!("the cluster is in header {name}, which is missing"),
                        change: format!("send header {name}"),
                        ..Refusal::default()
                    };
                    self.answer_no(&passage.hop, &request, trail, "route", rules.0, refusal)
                }
            },
            _ => trail.give_up("a plug-in chooses the cluster".into()),
        }
    }

    /// A request goes to a cluster.
    fn request_to(
        self,
        passage: &Passage<'a, '_>,
        name: &str,
        request: &Request,
        announced: Option<&Any>,
        (not_found, retries): (Status, Retries),
        trail: Trail,
    ) -> Way {
        let proxy = passage.hop.proxy;
        let no = |trail: Trail, status: Status, refusal: Refusal| {
            self.answer_no(&passage.hop, request, trail, "cluster", status, refusal)
        };
        let cluster = match proxy.clusters.get(name).map(|own| own.get()) {
            Some(Ok(cluster)) => cluster,
            Some(Err(why)) => return trail.give_up(format!("cluster {name}: {why}")),
            None => {
                let object = passage_object(passage);
                return no(trail, not_found, missing(name, object));
            }
        };
        let is_http2 = cluster::is_http2(cluster, request.is_http2);
        let protocols = passage.announced(announced, is_http2);
        let payload = Payload::Http(Request { is_http2, ..request.clone() });
        let sent = Sent { payload, protocols, via: Via::Requests(retries) };
        self.cluster(&passage.hop, cluster, sent, trail, |trail, refusal| no(trail, (503, "UH"), refusal))
    }

    /// Bytes go to the clusters of the filter that forwards them.
    pub(super) fn bytes(
        self,
        hop: &Hop<'a>,
        forward: &TcpProxy,
        asked: Option<String>,
        mut trail: Trail,
    ) -> Way {
        let proxy = hop.proxy;
        if forward.tunneling_config.is_some() {
            trail.pass(&proxy.name, "TCP", "goes through an HTTP proxy, by CONNECT");
        }
        let to = |name: &str, trail: Trail| {
            let close = |trail: Trail, flag: &'static str, refusal: Refusal| {
                self.no(proxy, hop.via, trail, "cluster", No::Close(flag), refusal)
            };
            match proxy.clusters.get(name).map(|own| own.get()) {
                Some(Ok(cluster)) => {
                    let payload = hop.connection.payload.clone();
                    let sent = Sent { payload, protocols: None, via: Via::Bytes };
                    self.cluster(hop, cluster, sent, trail, |trail, refusal| close(trail, "UH", refusal))
                }
                Some(Err(why)) => trail.give_up(format!("cluster {name}: {why}")),
                None => close(trail, "NC", missing(name, None)),
            }
        };
        match (asked, &forward.cluster_specifier) {
            (Some(name), _) => to(&name, trail),
            (None, Some(TcpClusters::Cluster(name))) => to(name, trail),
            (None, Some(TcpClusters::WeightedClusters(all))) => {
                let total: u32 = all.clusters.iter().map(|one| one.weight).sum();
                let ways = all.clusters.iter().filter(|one| one.weight > 0).map(|one| {
                    let part = f64::from(one.weight) / f64::from(total.max(1));
                    to(&one.name, trail.fork(part, format!("to {}", one.name)))
                });
                let ways = ways.collect();
                trail.split(ways)
            }
            (None, None) => trail.give_up("the TCP proxy names no cluster".into()),
        }
    }

    /// A request, or bytes, go to the endpoints of a cluster.
    fn cluster(
        self,
        hop: &Hop<'a>,
        cluster: &Cluster,
        sent: Sent,
        mut trail: Trail,
        no_endpoint: impl Fn(Trail, Refusal) -> Way,
    ) -> Way {
        let Sent { payload, protocols, via } = sent;
        let proxy = hop.proxy;
        let discovery = cluster::discovery(cluster);
        let how = match &discovery {
            Discovery::Listed(how) => (*how).to_owned(),
            Discovery::Original => "ORIGINAL_DST".into(),
            Discovery::Other(name) => name.clone(),
        };
        let rule = object(cluster.metadata.as_ref());
        let step = trail.pass(&proxy.name, "cluster", format!("{} ({how})", cluster.name));
        step.object.clone_from(&rule);
        step.details = cluster::limits(cluster);
        // TLS that nobody ended goes on as it came.
        let passed = hop.connection.tls.clone();
        let onwards = |address: Option<SocketAddr>, tls: Option<Tls>| Connection {
            destination: address.map(|address| address.ip()),
            port: address.map_or(hop.connection.port, |address| address.port()),
            source: proxy.address(),
            tls: tls.or_else(|| passed.clone()),
            payload: payload.clone(),
        };
        if hop.is_inbound && discovery == Discovery::Original {
            return self.workload(
                hop,
                &onwards(hop.connection.destination.map(|ip| SocketAddr::new(ip, hop.connection.port)), None),
                trail,
            );
        }
        let go = |endpoint: &Endpoint, mut trail: Trail| {
            let socket = cluster::transport(cluster, endpoint.metadata.as_ref());
            let tls =
                match self.secure(proxy, &socket, &payload, protocols.as_ref(), &mut trail, rule.as_ref()) {
                    Ok(tls) => tls,
                    Err(why) => {
                        trail.unsure(&proxy.name, "TLS", why);
                        None
                    }
                };
            if endpoint.address.is_none() && !matches!(discovery, Discovery::Original) {
                // A name that DNS knows, or a socket.
                return trail.end(arrival(&endpoint.shown, &onwards(None, tls)));
            }
            self.reach(onwards(endpoint.address, tls), via, trail)
        };
        match discovery {
            Discovery::Original => {
                let address = hop.connection.destination.map(|ip| SocketAddr::new(ip, hop.connection.port));
                let shown = hop.connection.target();
                trail.pass(&proxy.name, "endpoint", format!("{shown}, where the client wanted to go"));
                let endpoint = Endpoint { address, shown, share: 1.0, metadata: None, note: String::new() };
                go(&endpoint, trail)
            }
            Discovery::Other(_) => {
                let shown = match &payload {
                    Payload::Http(request) => request.authority.clone(),
                    _ => hop.connection.target(),
                };
                trail.pass(&proxy.name, "endpoint", format!("{shown}, found by DNS at each request"));
                trail.end(arrival(&shown, &onwards(None, None)))
            }
            Discovery::Listed(_) => {
                let endpoints = match cluster::endpoints(proxy, cluster) {
                    Ok(endpoints) => endpoints,
                    Err(why) => return trail.give_up(format!("endpoints of {}: {why}", cluster.name)),
                };
                if endpoints.panics {
                    trail.pass(
                        &proxy.name,
                        "health",
                        "too few endpoints are healthy: all get requests (panic mode)",
                    );
                }
                if endpoints.used.is_empty() {
                    return no_endpoint(trail, empty(cluster, rule, endpoints.idle));
                }
                if hop.is_inbound {
                    let first = &endpoints.used[0];
                    let address = first
                        .address
                        .map(|address| format!("{address}"))
                        .unwrap_or_else(|| first.shown.clone());
                    trail.pass(&proxy.name, "endpoint", format!("{address}, the workload"));
                    return self.workload(hop, &onwards(first.address, None), trail);
                }
                let count = endpoints.used.len();
                let idle = endpoints.idle;
                let followed = &endpoints.used[..count.min(FOLLOWED)];
                let whole: f64 = followed.iter().map(|one| one.share).sum();
                let ways = followed.iter().map(|endpoint| {
                    let note = if endpoint.note.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", endpoint.note)
                    };
                    let mut own =
                        trail.fork(endpoint.share / whole, format!("to endpoint {}", endpoint.shown));
                    own.pass(&proxy.name, "endpoint", format!("{}{note}", endpoint.shown));
                    go(endpoint, own)
                });
                let ways: Vec<Way> = ways.collect();
                let more = if count > FOLLOWED {
                    format!(" (the first {FOLLOWED} are looked at)")
                } else {
                    String::new()
                };
                if count > 1 || !idle.is_empty() {
                    let text = format!("{count} of {} get requests{more}", count + idle.len());
                    trail.pass(&proxy.name, "endpoints", text).details = idle.into_iter().take(10).collect();
                }
                trail.split(ways)
            }
        }
    }

    /// The request comes to the workload of the Envoy.
    fn workload(self, hop: &Hop<'_>, connection: &Connection, mut trail: Trail) -> Way {
        if connection.tls.is_some() {
            trail.pass(&hop.proxy.name, "workload", "gets TLS as it came: it must end it itself");
        }
        trail.end(arrival(&hop.proxy.name, connection))
    }

    /// What is put around a connection to an endpoint.
    fn secure(
        self,
        proxy: &Proxy,
        socket: &Socket,
        payload: &Payload,
        announced: Option<&Vec<String>>,
        trail: &mut Trail,
        rule: Option<&String>,
    ) -> Result<Option<Tls>, String> {
        let context = match socket {
            Socket::Plain => {
                trail.pass(&proxy.name, "TLS", "none: plaintext");
                return Ok(None);
            }
            Socket::Other(what) => return Err(format!("transport {what}")),
            Socket::Tls(context) => context,
        };
        let common = context.common_tls_context.clone().unwrap_or_default();
        let is_mesh = cluster::proves_workload(&common);
        let has_own =
            !common.tls_certificates.is_empty() || !common.tls_certificate_sds_secret_configs.is_empty();
        let identity = match (is_mesh, has_own) {
            (true, _) => Some(
                proxy.identity.clone().unwrap_or_else(|| "an identity that the dump does not tell".into()),
            ),
            (false, true) => Some("a certificate of its own".into()),
            (false, false) => None,
        };
        let mut wanted = cluster::validation(&common).map(cluster::wanted_names).unwrap_or_default();
        let kind = if is_mesh {
            "mutual TLS of the mesh"
        } else if has_own {
            "mutual TLS"
        } else {
            "TLS"
        };
        let name = match (context.sni.as_str(), payload) {
            ("", Payload::Http(request)) => route::without_port(&request.authority).to_owned(),
            (name, _) => name.to_owned(),
        };
        let step = trail.pass(&proxy.name, "TLS", format!("{kind}, SNI {name}"));
        step.object = rule.cloned();
        if !wanted.is_empty() {
            step.details = vec![format!("the server must be {}", wanted.join(" or "))];
        }
        // Names of hosts are for servers outside, of which nothing is known here.
        wanted.retain(|name| name.contains("spiffe:") || is_mesh);
        Ok(Some(Tls {
            name,
            protocols: announced.cloned().unwrap_or(common.alpn_protocols),
            identity,
            wanted,
        }))
    }
}

fn passage_object(passage: &Passage<'_, '_>) -> Option<String> {
    match passage.found() {
        Found::Route(_, route) => object(route.metadata.as_ref()),
        _ => None,
    }
}

/// What is tried again on a route.
fn retries(action: &RouteAction, host: &VirtualHost) -> Retries {
    let Some(policy) = action.retry_policy.as_ref().or(host.retry_policy.as_ref()) else {
        return Retries::default();
    };
    let has = |names: &[&str]| policy.retry_on.split(',').any(|name| names.contains(&name.trim()));
    let is_on = policy.num_retries != Some(0);
    let reset = is_on && has(&["5xx", "gateway-error", "reset"]);
    Retries { connect: reset || is_on && has(&["connect-failure"]), reset }
}

fn not_found(action: &RouteAction) -> Status {
    match action.cluster_not_found_response_code {
        1 => (404, "NC"),
        2 => (500, "NC"),
        _ => (503, "NC"),
    }
}

/// `DIRECTION|PORT|SUBSET|HOST`.
fn parts(cluster: &str) -> Option<(&str, &str, &str)> {
    let mut parts = cluster.split('|');
    let (_, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((port, subset, host))
}

/// The cluster that a route names is not there.
fn missing(name: &str, object: Option<String>) -> Refusal {
    let change = match parts(name) {
        Some((_, "", host)) => format!(
            "the destination {host} with that port is no service that this proxy knows: correct the VirtualService, or look for a Sidecar or exportTo that hides it"
        ),
        Some((_, subset, host)) => format!(
            "add subset {subset} to the DestinationRule of {host}, or name another one in the VirtualService"
        ),
        None => "correct the destination of the route".into(),
    };
    Refusal { text: format!("{name} is not there"), object, change, ..Refusal::default() }
}

/// The cluster has no endpoint to send to.
fn empty(cluster: &Cluster, rule: Option<String>, idle: Vec<String>) -> Refusal {
    let name = &cluster.name;
    if name == BLACK_HOLE {
        let text = "BlackHoleCluster takes what no service has, and unknown destinations are blocked (REGISTRY_ONLY)";
        return Refusal { text: text.into(), change: REGISTRY_ONLY.into(), ..Refusal::default() };
    }
    let change = match (idle.is_empty(), parts(name)) {
        (false, _) => "make an endpoint healthy again: see the reasons above".into(),
        (true, Some((_, "", host))) => format!(
            "no ready pod fits the selector of {host}, or none has that port: start one, or correct selector or targetPort"
        ),
        (true, Some((_, subset, host))) => format!(
            "no ready pod of {host} has the labels of subset {subset}: start one, or correct the DestinationRule"
        ),
        (true, None) => "give the cluster endpoints".into(),
    };
    Refusal {
        text: format!("{name} has no endpoint that is healthy"),
        object: rule,
        change,
        details: idle,
        ..Refusal::default()
    }
}

fn no_host(hop: &Hop<'_>, request: &Request) -> String {
    if hop.proxy.is_router {
        return format!(
            "add {} to the hosts of a VirtualService that is bound to the Gateway of that port",
            request.authority
        );
    }
    format!(
        "call the service by its own name and port; {} is none that this listener knows",
        request.authority
    )
}
