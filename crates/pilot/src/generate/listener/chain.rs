//! Filter chains and the filters that listeners share.

use names::cluster_name;
use proto::Any;
use proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
    listener_filter, listener_filter_chain_match_predicate,
};
use proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use proto::envoy::r#type::v3::Int32Range;

use super::native;
use crate::generate::filter::wasm::Phase;
use crate::generate::filter::{Direction, Place, access_log, ext_authz, rbac, stats, wasm};
use crate::generate::message::{network_filter, seconds};
use crate::protocol::Protocol;
use crate::scope::Scope;

const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// What HTTP looks like to the inspector when it is not encrypted.
pub(super) const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];

/// Forwards bytes to a cluster, past what policies put before it.
pub(super) fn tcp(scope: Scope<'_>, place: Place<'_>, cluster: &str) -> Vec<Filter> {
    forward(scope, place, proxy(scope, cluster), cluster)
}

/// The same with settings of its own; `cluster` is the first destination.
pub(super) fn forward(scope: Scope<'_>, place: Place<'_>, proxy: TcpProxy, cluster: &str) -> Vec<Filter> {
    let mut filters = ext_authz::network(scope, place);
    filters.extend(wasm::network(scope, place, Phase::Authn));
    filters.extend(wasm::network(scope, place, Phase::Authz));
    filters.extend(rbac::network(scope, place));
    filters.extend(wasm::network(scope, place, Phase::Stats));
    filters.extend(wasm::network(scope, place, Phase::Unspecified));
    filters.extend(unguarded(scope, place, proxy, cluster));
    filters
}

/// The same past no policy.
pub(super) fn unguarded(scope: Scope<'_>, place: Place<'_>, proxy: TcpProxy, cluster: &str) -> Vec<Filter> {
    let mut filters = Vec::from_iter(stats::network(scope, place));
    filters.extend(native::name_filter(scope, place));
    let (own, is_last) = native::filter(scope, place.protocol, &proxy.stat_prefix, cluster);
    filters.extend(own);
    if !is_last {
        let proxy = TcpProxy { access_log: access_log::tcp(scope, place), ..proxy };
        filters.push(network_filter(TCP_PROXY, &proxy));
    }
    filters
}

/// Handles requests, past what extensions put before them.
pub(super) fn http(scope: Scope<'_>, place: Place<'_>, manager: Filter) -> Vec<Filter> {
    let phases = [Phase::Authn, Phase::Authz, Phase::Stats, Phase::Unspecified];
    let extensions = phases.into_iter().flat_map(|phase| wasm::network(scope, place, phase));
    extensions.chain([manager]).collect()
}

/// Forwards what no service takes, as the policy for it says.
pub(super) fn unknown(scope: Scope<'_>) -> Vec<Filter> {
    let place = Place::new(Direction::Outbound, Protocol::Tcp, 0, None);
    let mut filters = Vec::from_iter(stats::network(scope, place));
    let proxy =
        TcpProxy { access_log: access_log::tcp(scope, place), ..proxy(scope, scope.unknown_destination()) };
    filters.push(network_filter(TCP_PROXY, &proxy));
    filters
}

/// Ends connections that would come back for ever.
pub(super) fn black_hole(scope: Scope<'_>, direction: Direction) -> Vec<Filter> {
    let mut filters = Vec::from_iter(stats::network(scope, Place::new(direction, Protocol::Tcp, 0, None)));
    let proxy = TcpProxy { idle_timeout: None, ..proxy(scope, cluster_name::BLACK_HOLE) };
    filters.push(network_filter(TCP_PROXY, &proxy));
    filters
}

/// Forwards to one cluster.
pub(super) fn proxy(scope: Scope<'_>, cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        idle_timeout: scope.proxy.idle_timeout.map(Into::into),
        ..TcpProxy::default()
    }
}

pub(super) fn chain(name: &str, matcher: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain { name: name.into(), filter_chain_match: matcher, filters, ..FilterChain::default() }
}

/// Envoy's time for a TLS handshake on chains of services.
pub(super) fn with_handshake_timeout(chain: FilterChain) -> FilterChain {
    FilterChain { transport_socket_connect_timeout: seconds(15), ..chain }
}

/// Matches by port, by `tls` or `raw_buffer`, and by application protocols.
pub(super) fn matching(port: Option<u16>, transport: &str, protocols: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: port.map(u32::from),
        transport_protocol: transport.into(),
        application_protocols: protocols.iter().map(|&name| name.into()).collect(),
        ..FilterChainMatch::default()
    }
}

pub(super) fn listener_filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.into(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(Any::pack(config))),
        ..ListenerFilter::default()
    }
}

pub(super) fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

pub(super) fn tls_inspector() -> ListenerFilter {
    // Most greetings are smaller; the buffer grows when one is not.
    let inspector = TlsInspector { initial_read_buffer_size: Some(512), ..TlsInspector::default() };
    listener_filter("envoy.filters.listener.tls_inspector", &inspector)
}

/// Fits connections to these ports, which are sorted.
pub(super) fn to_ports(ports: impl Iterator<Item = u16>) -> ListenerFilterChainMatchPredicate {
    use listener_filter_chain_match_predicate::{MatchSet, Rule};
    let rule = |port: u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start: port.into(), end: i32::from(port) + 1 })),
    };
    let mut rules: Vec<_> = ports.map(rule).collect();
    if rules.len() == 1 {
        return rules.remove(0);
    }
    ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
}

/// Fits connections to all ports but these, which are sorted.
pub(super) fn to_other_ports(ports: impl Iterator<Item = u16>) -> ListenerFilterChainMatchPredicate {
    use listener_filter_chain_match_predicate::Rule;
    ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(to_ports(ports)))) }
}
