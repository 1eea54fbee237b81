//! Which listener and which of its filter chains a connection meets, by Envoy's
//! rules.

use std::net::IpAddr;

use proto::envoy::config::core::v3::CidrRange;
use proto::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use proto::envoy::config::listener::v3::listener_filter::ConfigType;
use proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use proto::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
};

use super::connection::{Connection, Seen};
use super::matching::bits;
use super::message::kind;
use super::proxy::{Proxy, socket};

/// What takes redirected outbound connections first.
pub(super) const OUTBOUND: &str = "virtualOutbound";
/// The same of inbound ones.
pub(super) const INBOUND: &str = "virtualInbound";

/// A listener by its name.
pub(super) fn by_name<'a>(proxy: &'a Proxy, name: &str) -> Option<&'a Listener> {
    all(proxy).find(|listener| listener.name == name)
}

/// The listener that Envoy hands a connection to by its destination: one at that
/// address, else one at all addresses of that port. `bound`: only those that take
/// connections themselves.
pub(super) fn by_destination(proxy: &Proxy, ip: Option<IpAddr>, port: u16, bound: bool) -> Option<&Listener> {
    let fits = |listener: &&Listener| !bound || is_bound(listener);
    if let Some(ip) = ip
        && let Some(found) = all(proxy).filter(fits).find(|listener| has(listener, &ip.to_string(), port))
    {
        return Some(found);
    }
    let any = if ip.is_some_and(|ip| ip.is_ipv6()) { "::" } else { "0.0.0.0" };
    all(proxy).filter(fits).find(|listener| has(listener, any, port))
}

fn all(proxy: &Proxy) -> impl Iterator<Item = &Listener> {
    proxy.listeners.iter().filter_map(|listener| listener.get().ok())
}

fn is_bound(listener: &Listener) -> bool {
    let old = listener.deprecated_v1.as_ref().and_then(|old| old.bind_to_port);
    listener.bind_to_port.or(old).unwrap_or(true)
}

fn has(listener: &Listener, ip: &str, port: u16) -> bool {
    let more = listener.additional_addresses.iter().map(|more| more.address.as_ref());
    std::iter::once(listener.address.as_ref()).chain(more).any(|address| socket(address) == Some((ip, port)))
}

/// The address of a listener.
pub(super) fn address(listener: &Listener) -> String {
    socket(listener.address.as_ref())
        .map_or_else(|| listener.name.clone(), |(ip, port)| format!("{ip}:{port}"))
}

/// What the listener's inspectors see of a connection.
pub(super) fn inspect(listener: &Listener, connection: &Connection) -> Seen {
    let has = |name: &str| {
        listener.listener_filters.iter().any(|filter| is(filter, name) && !is_off(filter, connection.port))
    };
    connection.seen(has("TlsInspector"), has("HttpInspector"))
}

fn is(filter: &ListenerFilter, name: &str) -> bool {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => kind(any).rsplit('.').next() == Some(name),
        _ => {
            let snake = if name == "TlsInspector" { "tls_inspector" } else { "http_inspector" };
            filter.name.ends_with(snake)
        }
    }
}

fn is_off(filter: &ListenerFilter, port: u16) -> bool {
    filter.filter_disabled.as_ref().is_some_and(|predicate| holds(predicate, port))
}

fn holds(predicate: &ListenerFilterChainMatchPredicate, port: u16) -> bool {
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&i32::from(port)),
        None => false,
    }
}

type Chain<'a> = (&'a FilterChain, &'a FilterChainMatch);

/// The filter chain for a connection. Each step keeps what fits best; Envoy does
/// not come back to what fitted less when a later step has nothing that fits.
pub(super) fn chain<'a>(
    listener: &'a Listener,
    connection: &Connection,
    seen: &Seen,
) -> Option<&'a FilterChain> {
    // Long-lived, so that a chain without a match can be compared like one with an empty one.
    static EVERYTHING: std::sync::LazyLock<FilterChainMatch> =
        std::sync::LazyLock::new(FilterChainMatch::default);
    let all: Vec<Chain<'a>> = listener
        .filter_chains
        .iter()
        .map(|chain| (chain, chain.filter_chain_match.as_ref().unwrap_or(&EVERYTHING)))
        .collect();
    steps(all, connection, seen).or(listener.default_filter_chain.as_ref())
}

fn steps<'a>(mut all: Vec<Chain<'a>>, connection: &Connection, seen: &Seen) -> Option<&'a FilterChain> {
    let port = u32::from(connection.port);
    let has_port = all.iter().any(|(_, matcher)| matcher.destination_port == Some(port));
    all.retain(|(_, matcher)| matcher.destination_port == has_port.then_some(port));
    by_range(&mut all, connection.destination, |matcher| &matcher.prefix_ranges);

    let names = wanted_names(&seen.name, &all);
    all.retain(|(_, matcher)| match &names {
        Some(name) => matcher.server_names.iter().any(|own| server_name(own) == *name),
        None => matcher.server_names.is_empty(),
    });

    let has_transport = all.iter().any(|(_, matcher)| matcher.transport_protocol == seen.transport);
    let transport = if has_transport { seen.transport } else { "" };
    all.retain(|(_, matcher)| matcher.transport_protocol == transport);

    let protocol = seen
        .protocols
        .iter()
        .find(|name| all.iter().any(|(_, matcher)| matcher.application_protocols.contains(name)));
    all.retain(|(_, matcher)| match protocol {
        Some(name) => matcher.application_protocols.contains(name),
        None => matcher.application_protocols.is_empty(),
    });

    by_range(&mut all, connection.source, |matcher| &matcher.direct_source_prefix_ranges);
    by_source_type(&mut all, connection);
    by_range(&mut all, connection.source, |matcher| &matcher.source_prefix_ranges);
    // The port of the client is not known: chains that ask for one are left out.
    all.retain(|(_, matcher)| matcher.source_ports.is_empty());
    all.first().map(|(chain, _)| *chain)
}

/// Keeps those with the longest range that has the address; none has one that is
/// not known.
fn by_range<'a>(
    all: &mut Vec<Chain<'a>>,
    address: Option<IpAddr>,
    ranges: impl Fn(&'a FilterChainMatch) -> &'a Vec<CidrRange>,
) {
    let length = |matcher: &'a FilterChainMatch| {
        let ranges = ranges(matcher);
        if ranges.is_empty() {
            return Some(0);
        }
        // A range is more than none, even one of all addresses.
        address
            .and_then(|address| ranges.iter().filter_map(|range| bits(range, address)).max())
            .map(|bits| bits + 1)
    };
    let best = all.iter().filter_map(|(_, matcher)| length(matcher)).max();
    all.retain(|(_, matcher)| best.is_some() && length(matcher) == best);
}

/// `*.a` in a chain stands for `.a` and what is before it.
fn server_name(own: &str) -> &str {
    own.strip_prefix('*').unwrap_or(own)
}

/// The server name that chains have, exact first, then with ever less of it.
fn wanted_names<'a>(name: &'a str, all: &[Chain<'_>]) -> Option<&'a str> {
    let has = |wanted: &str| {
        all.iter().any(|(_, matcher)| matcher.server_names.iter().any(|own| server_name(own) == wanted))
    };
    if name.is_empty() {
        return None;
    }
    let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
    std::iter::once(name).chain(dots.map(|at| &name[at..])).find(|wanted| has(wanted))
}

fn by_source_type(all: &mut Vec<Chain<'_>>, connection: &Connection) {
    let has = |wanted: ConnectionSourceType| all.iter().any(|(_, matcher)| matcher.source_type() == wanted);
    let is_local = connection.source.is_some_and(|ip| ip.is_loopback() || Some(ip) == connection.destination);
    let own = if is_local { ConnectionSourceType::SameIpOrLoopback } else { ConnectionSourceType::External };
    let wanted = if has(own) { own } else { ConnectionSourceType::Any };
    all.retain(|(_, matcher)| matcher.source_type() == wanted);
}

/// A chain in words.
pub(super) fn show(chain: &FilterChain) -> String {
    let Some(matcher) = &chain.filter_chain_match else { return "any".into() };
    let mut parts = Vec::new();
    if let Some(port) = matcher.destination_port {
        parts.push(format!("port {port}"));
    }
    for range in &matcher.prefix_ranges {
        parts.push(super::matching::show_cidr(range));
    }
    if !matcher.server_names.is_empty() {
        parts.push(format!("SNI {}", matcher.server_names.join(", ")));
    }
    if !matcher.transport_protocol.is_empty() {
        parts.push(matcher.transport_protocol.clone());
    }
    if !matcher.application_protocols.is_empty() {
        parts.push(format!("ALPN {}", matcher.application_protocols.join(", ")));
    }
    if parts.is_empty() { "any".into() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests;
