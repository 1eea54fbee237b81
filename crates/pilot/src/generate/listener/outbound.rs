//! Listeners for connections that the proxy's workload makes.

use std::net::IpAddr;
use std::sync::Arc;

use names::port as ports;
use proto::envoy::config::core::v3::TrafficDirection;
use proto::envoy::config::listener::v3::{FilterChain, Listener};

use super::bytes::{self, Site, needs_name};
use super::chain::{
    PLAIN_HTTP, black_hole, chain, http as with_extensions, http_inspector, matching, unknown,
};
use super::draft::Draft;
use super::entry::{self, Entries, Entry, Kind};
use super::{base, bind, port_of};
use crate::finding::Topic;
use crate::generate::filter::{Direction, Place, access_log};
use crate::generate::{http, route};
use crate::protocol::Protocol;
use crate::proxy::Interception;
use crate::scope::{Egress, Scope};
use crate::snapshot::{Port, Registry, Resolution, Service};

/// Takes every redirected connection and hands it to the listener of its
/// destination; what has none goes where the mesh's policy says.
pub(super) fn catch_all(scope: Scope<'_>) -> Listener {
    let port = port_of(scope.snapshot.mesh.proxy_listen_port, ports::OUTBOUND);
    let loops = matching(Some(port), "", &[]);
    let any = super::wildcards(scope);
    let mut listener = base(scope, "virtualOutbound".into(), any, port, TrafficDirection::Outbound);
    listener.use_original_dst = Some(true);
    listener.transparent = (scope.proxy.interception == Interception::Tproxy).then_some(true);
    listener.max_connections_to_accept_per_socket_event = Some(1);
    listener.access_log = access_log::listener(scope, Direction::Outbound);
    listener.filter_chains =
        vec![chain("virtualOutbound-blackhole", Some(loops), black_hole(scope, Direction::Outbound))];
    if scope.resolves_unknown() {
        listener.filter_chains.push(by_host(scope));
        listener.listener_filters.push(http_inspector());
        // Servers that speak first are waited for; Istio waits as long as Envoy does by itself.
        if scope.snapshot.mesh.protocol_detection_timeout.is_some_and(|time| time != Default::default()) {
            super::set_detection_timeout(scope, &mut listener);
        }
    }
    listener.filter_chains.push(chain("virtualOutbound-catchall-tcp", None, unknown(scope)));
    listener
}

/// The chain for requests to hosts that no service names: they go where DNS says
/// that the host is.
fn by_host(scope: Scope<'_>) -> FilterChain {
    let place = Place::new(Direction::Outbound, Protocol::Http, 0, None);
    let routes = route::of_unknown(scope);
    let manager = http::unknown(scope, place, "outbound_virtualOutbound_allow_any_dynamic_dns", routes);
    chain("virtualOutbound-catchall-tcp-http", Some(matching(None, "", PLAIN_HTTP)), vec![manager])
}

/// The mesh's port for requests to an HTTP proxy, where it has one.
pub(super) fn http_proxy(scope: Scope<'_>) -> Option<Listener> {
    let own = scope.proxy.says("HTTP_PROXY_PORT").parse::<u16>().ok();
    let number = own.or_else(|| u16::try_from(scope.snapshot.mesh.proxy_http_port).ok());
    let port = number.filter(|number| *number != 0)?;
    let binds: Vec<String> = bind::loopback(scope.proxy).iter().map(|&ip| ip.to_owned()).collect();
    let place = Place::new(Direction::Outbound, Protocol::HttpProxy, port, None);
    let stat_prefix = format!("outbound_{}_{port}", binds.first()?);
    let manager = http::forward_proxy(scope, place, &stat_prefix, route::HTTP_PROXY);
    let chain = Draft { filters: with_extensions(scope, place, manager), ..Draft::default() };
    let entry = Entry {
        binds,
        port,
        binds_to_port: true,
        protocol: Protocol::HttpProxy,
        kind: Kind::Http,
        is_locked: true,
        chains: vec![chain],
    };
    Some(entry::write(scope, entry))
}

/// One listener for all HTTP services of a port, one for each address and port
/// of other services, and those of the Sidecar's egress. Where several want the
/// same address and port, see [`Entries`].
pub(super) fn listeners(scope: Scope<'_>) -> Vec<Listener> {
    let mut entries = Entries::default();
    for egress in &scope.view.egress {
        let way = Way::new(scope, egress);
        match &egress.port {
            Some(port) => {
                if can_bind(scope, &way, port.number, port.protocol) {
                    for service in &egress.services {
                        add_all(&way, &mut entries, service, port);
                    }
                }
            }
            None => {
                // What a listener with a port of its own leaves out stays out.
                entries.lock();
                for service in &egress.services {
                    for port in &service.ports {
                        if can_bind(scope, &way, port.number, port.protocol) {
                            add_all(&way, &mut entries, service, port);
                        }
                    }
                }
            }
        }
    }
    entries.write(scope)
}

/// A way out with where its listeners stand.
#[derive(Clone, Copy)]
struct Way<'a> {
    scope: Scope<'a>,
    egress: &'a Egress,
    /// Whether its listeners take connections themselves.
    binds_to_port: bool,
    /// The first of all addresses.
    any: &'static str,
}

impl<'a> Way<'a> {
    fn new(scope: Scope<'a>, egress: &'a Egress) -> Self {
        let binds_to_port = scope.proxy.interception == Interception::None || egress.binds_to_port;
        let any = bind::any(scope.proxy).first().copied().unwrap_or_default();
        Self { scope, egress, binds_to_port, any }
    }

    /// Addresses that all its listeners take; none when each service has its own.
    fn binds(&self) -> Vec<String> {
        if !self.egress.bind.is_empty() {
            vec![self.egress.bind.clone()]
        } else if self.binds_to_port {
            bind::loopback(self.scope.proxy).iter().map(|&ip| ip.to_owned()).collect()
        } else {
            Vec::new()
        }
    }
}

/// Whether a listener may stand there: the proxy's own ports are taken, and a
/// proxy without privileges cannot open low ones.
fn can_bind(scope: Scope<'_>, way: &Way<'_>, port: u16, protocol: Protocol) -> bool {
    let is_low = (1..1024).contains(&port);
    if way.binds_to_port && is_low && super::is_unprivileged(scope.proxy) {
        return false;
    }
    let binds = way.binds();
    let takes_any = match binds.first() {
        Some(address) => address == way.any,
        None => protocol.is_http(),
    };
    !(takes_any && super::is_reserved(scope, port))
}

/// Adds the listeners of a service's port.
fn add_all(way: &Way<'_>, entries: &mut Entries, service: &Arc<Service>, port: &Port) {
    let Some(kind) = Kind::of(port.protocol) else { return };
    let binds = way.binds();
    let scope = way.scope;
    let any = || bind::any(scope.proxy).iter().map(|&ip| ip.to_owned()).collect();
    if kind == Kind::Http {
        let binds = if binds.is_empty() { any() } else { binds };
        return add(way, entries, service, port, binds, None);
    }
    let addresses = bind::of_service(scope, service);
    if !binds.is_empty() {
        let own = addresses.first().and_then(|own| own.first());
        return add(way, entries, service, port, binds, own.map(String::as_str));
    }
    for addresses in addresses {
        match addresses.first().cloned() {
            Some(range) if range.contains('/') => add(way, entries, service, port, any(), Some(&range)),
            Some(own) => add(way, entries, service, port, addresses, Some(&own)),
            None if way.egress.port.is_none() && service.resolution == Resolution::Passthrough => {
                add_workloads(way, entries, service, port);
            }
            None => add(way, entries, service, port, bind::unspecified(scope, service), None),
        }
    }
}

/// A service without an address is reached by those of its workloads; the
/// proxy's own reaches itself without the mesh.
fn add_workloads(way: &Way<'_>, entries: &mut Entries, service: &Arc<Service>, port: &Port) {
    let mut endpoints = service.endpoints_of(port).peekable();
    if endpoints.peek().is_none() && service.registry == Registry::External && service.selector.is_empty() {
        // Whatever has that port.
        let any = bind::unspecified(way.scope, service);
        return add(way, entries, service, port, any, None);
    }
    let own = way.scope.proxy.ips.first();
    for endpoint in endpoints {
        let more = endpoint.more_addresses.iter();
        let addresses: Vec<&str> = [&endpoint.address].into_iter().chain(more).map(|ip| &**ip).collect();
        let ips: Option<Vec<IpAddr>> = addresses.iter().map(|text| text.parse().ok()).collect();
        let Some(ips) = ips.filter(|ips| ips.first() != own) else { continue };
        add(way, entries, service, port, ips.iter().map(IpAddr::to_string).collect(), None);
    }
}

/// Adds one listener, or what it takes to one that is there. `own` is the
/// address, or range of addresses, that the service is reached by.
fn add(
    way: &Way<'_>,
    entries: &mut Entries,
    service: &Arc<Service>,
    port: &Port,
    binds: Vec<String>,
    own: Option<&str>,
) {
    let Some(kind) = Kind::of(port.protocol) else { return };
    let Some(bind) = binds.first().cloned() else { return };
    let known = entries.get(&bind, port.number);
    if let Some(known) = known.filter(|known| !known.is_open_to(kind, port.protocol)) {
        if !known.is_locked && !known.tolerates(port.protocol) {
            conflict(way, service, port, &bind);
        }
        return;
    }
    let takes_any = bind == way.any;
    let is_sniffed = kind == Kind::Auto || (takes_any && port.protocol != Protocol::HttpProxy);
    let mut chains = Vec::new();
    if kind != Kind::Http {
        let needs_name = needs_name(service, own, takes_any);
        // A listener with an address of its own is not asked for others.
        let is_range = |own: &&str| own.contains('/') && way.binds().is_empty();
        let ranges: Vec<String> = own.filter(is_range).map(str::to_owned).into_iter().collect();
        let ranges = ranges.as_slice();
        let site = Site { scope: way.scope, egress: way.egress, service, port, ranges, needs_name };
        chains.extend(bytes::chains(site));
    }
    if kind == Kind::Http || (kind == Kind::Auto && known.is_none_or(|known| known.kind != Kind::Auto)) {
        chains.push(requests(way, service, port, &bind, is_sniffed));
    }
    let entry = Entry {
        binds,
        port: port.number,
        binds_to_port: way.binds_to_port,
        protocol: port.protocol,
        // Next to a chain for requests there is one for the rest.
        kind: if is_sniffed { kind.sniffed() } else { kind },
        is_locked: false,
        chains: Vec::new(),
    };
    if entries.add(entry, chains) {
        conflict(way, service, port, &bind);
    }
}

/// Tells that a service does not get all the connections that it wants.
fn conflict(way: &Way<'_>, service: &Service, port: &Port, bind: &str) {
    let (host, number, protocol) = (&service.host, port.number, port.protocol);
    way.scope.note(Topic::OutboundListener, format!("{bind}_{number}"), Some(service.origin()), || {
        format!(
            "listener {bind}_{number} is taken by an older service in part or whole: connections to port {number} \
             ({protocol:?}) of {host} go there; give {host} an address or a port of its own"
        )
    });
}

/// The chain for requests.
fn requests(way: &Way<'_>, service: &Arc<Service>, port: &Port, bind: &str, is_sniffed: bool) -> Draft {
    let routes = if port.number == 0 {
        bind.to_owned()
    } else if Kind::of(port.protocol) == Some(Kind::Auto) && bind != way.any {
        // The listener is the service's own, and so are its routes.
        format!("{}:{}", service.host, port.number)
    } else {
        port.number.to_string()
    };
    let place = Place::new(Direction::Outbound, port.protocol, port.number, Some(service));
    let stat_prefix = format!("outbound_{bind}_{}", port.number);
    let manager = http::outbound(way.scope, place, &stat_prefix, &routes);
    Draft {
        transport: if is_sniffed { "raw_buffer" } else { "" },
        protocols: if is_sniffed { PLAIN_HTTP } else { &[] },
        filters: with_extensions(way.scope, place, manager),
        ..Draft::default()
    }
}
