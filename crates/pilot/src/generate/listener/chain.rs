//! Filter chains and the filters that listeners share.

use names::cluster_name;
use proto::Any;
use proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
    listener_filter, listener_filter_chain_match_predicate,
};
use proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use proto::envoy::r#type::v3::Int32Range;

use crate::generate::filter::wasm::Phase;
use crate::generate::filter::{Place, access_log, ext_authz, rbac, stats, wasm};
use crate::generate::message::{network_filter, seconds};
use crate::scope::Scope;

const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// What HTTP looks like to the inspector when it is not encrypted.
pub(super) const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Forwards bytes to a cluster, past what policies put before it.
pub(super) fn tcp(scope: Scope<'_>, place: Place<'_>, cluster: &str) -> Vec<Filter> {
    let proxy = TcpProxy { access_log: access_log::tcp(scope, place), ..proxy(scope, cluster) };
    let mut filters = ext_authz::network(scope, place);
    filters.extend(wasm::network(scope, place, Phase::Authn));
    filters.extend(wasm::network(scope, place, Phase::Authz));
    filters.extend(rbac::network(scope, place));
    filters.extend(wasm::network(scope, place, Phase::Stats));
    filters.extend(wasm::network(scope, place, Phase::Unspecified));
    filters.extend(stats::network(scope, place));
    filters.push(network_filter(TCP_PROXY, &proxy));
    filters
}

/// Ends connections that would come back for ever.
pub(super) fn black_hole(scope: Scope<'_>) -> Vec<Filter> {
    vec![network_filter(TCP_PROXY, &proxy(scope, cluster_name::BLACK_HOLE))]
}

fn proxy(scope: Scope<'_>, cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        idle_timeout: scope.proxy.idle_timeout.map(Into::into),
        ..TcpProxy::default()
    }
}

/// Where traffic goes that the mesh knows nothing of.
pub(super) fn unknown_destination(scope: Scope<'_>) -> &'static str {
    if scope.allows_any_outbound() { cluster_name::PASSTHROUGH } else { cluster_name::BLACK_HOLE }
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

/// Plaintext HTTP; HTTP/1.0 as well when the proxy accepts it.
pub(super) fn plain_http(scope: Scope<'_>, port: Option<u16>) -> FilterChainMatch {
    let mut matcher = matching(port, "raw_buffer", &PLAIN_HTTP);
    if scope.proxy.http10 {
        matcher.application_protocols.insert(0, "http/1.0".into());
    }
    matcher
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

/// Does not run on these ports, which are sorted.
pub(super) fn disabled_on(ports: impl Iterator<Item = u16>) -> ListenerFilterChainMatchPredicate {
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
