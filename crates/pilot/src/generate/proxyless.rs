//! Resources for applications that speak xDS themselves, by gRPC's library.
//!
//! gRPC asks for everything by name: the listener of `HOST:PORT` names a route
//! configuration, that names clusters, and those name endpoints. A server asks
//! for the listener of its own address.

use std::collections::BTreeSet;
use std::sync::Arc;

use names::{ClusterName, Direction, Hostname};
use proto::Any;
use proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use proto::envoy::config::cluster::v3::cluster::{DiscoveryType, EdsClusterConfig, LbPolicy};
use proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use proto::envoy::config::listener::v3::{ApiListener, FilterChain, Listener};
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::{NonForwardingAction, Route, RouteConfiguration, VirtualHost};
use proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use proto::envoy::extensions::filters::http::router::v3::Router;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::load_balancer_settings::SimpleLb;

use super::cluster::policy::{self, Policy};
use super::filter::{rbac, session};
use super::http::filter;
use super::message::{address, ads, network_filter};
use super::{cluster, route, tls};
use crate::scope::{Inbound, Scope};
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::{MtlsMode, Port, Service};

/// Beginning of the names of listeners that servers ask for; their address follows.
pub(crate) const SERVER: &str = "xds.istio.io/grpc/lds/inbound/";

/// The listeners of these names, as far as they exist.
pub(super) fn listeners<'a>(scope: Scope<'_>, names: impl Iterator<Item = &'a str>) -> Vec<Listener> {
    names
        .filter_map(|name| match name.strip_prefix(SERVER) {
            Some(at) => server(scope, name, at),
            None => client(scope, name),
        })
        .collect()
}

/// How an application reaches `HOST:PORT`.
fn client(scope: Scope<'_>, name: &str) -> Option<Listener> {
    let (host, port) = name.rsplit_once(':')?;
    let service = find(scope, host)?;
    let port = service.port(port.parse().ok()?)?;
    let own = [filter("envoy.filters.http.fault", &HttpFault::default()), router()];
    let manager = HttpConnectionManager {
        http_filters: session::proxyless(scope, service).into_iter().chain(own).collect(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: ClusterName::outbound(port.number, "", &service.host).to_string(),
        })),
        ..HttpConnectionManager::default()
    };
    let ip = service.addresses.first().map_or("0.0.0.0", String::as_str);
    Some(Listener {
        name: name.into(),
        address: Some(address(ip, port.number)),
        api_listener: Some(ApiListener { api_listener: Some(Any::pack(&manager)) }),
        ..Listener::default()
    })
}

/// The service of a host name, which may be as short as the proxy's domain allows.
fn find<'a>(scope: Scope<'a>, host: &str) -> Option<&'a Service> {
    let (namespace, domain) = (&scope.proxy.namespace, &scope.proxy.id.domain);
    let longer = if host.contains('.') {
        let suffixes = [format!(".{namespace}"), format!(".{namespace}.svc")];
        let short = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix.as_str()));
        short.map(|short| format!("{short}.{domain}"))
    } else {
        Some(format!("{host}.{domain}"))
    };
    let mut names = [Some(host.to_owned()), longer].into_iter().flatten();
    names.find_map(|name| scope.service(&Hostname::new(&name))).map(|service| &**service)
}

/// What a server that listens at `at` accepts.
fn server(scope: Scope<'_>, name: &str, at: &str) -> Option<Listener> {
    let (host, port) = at.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port.parse().ok()?;
    let inbound = scope.inbound();
    let Inbound { target, .. } = inbound.iter().find(|inbound| inbound.target == port)?;
    // gRPC cannot accept both: who says that it speaks mutual TLS is held to it.
    let speaks_mtls = scope.proxy.label(names::label::TLS_MODE) == Some(names::label::TLS_MODE_ISTIO);
    let is_secure = match scope.modes().of_port(*target) {
        MtlsMode::Strict => true,
        MtlsMode::Permissive => speaks_mtls,
        MtlsMode::Disable => false,
    };
    let everything = Route {
        r#match: Some(route::everything()),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    let manager = HttpConnectionManager {
        http_filters: rbac::proxyless(scope).into_iter().chain([router()]).collect(),
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            name: "inbound".into(),
            virtual_hosts: vec![VirtualHost {
                domains: vec!["*".into()],
                routes: vec![everything],
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        })),
        ..HttpConnectionManager::default()
    };
    let suffix = if is_secure { "mtls" } else { "plaintext" };
    Some(Listener {
        name: name.into(),
        address: Some(address(host, port)),
        filter_chains: vec![FilterChain {
            name: format!("inbound-{suffix}"),
            filters: vec![network_filter(&format!("inbound-hcm{suffix}"), &manager)],
            transport_socket: is_secure.then(tls::proxyless_server),
            ..FilterChain::default()
        }],
        ..Listener::default()
    })
}

/// The route configurations of these names, as far as they exist.
pub(super) fn routes<'a>(scope: Scope<'_>, names: impl Iterator<Item = &'a str>) -> Vec<RouteConfiguration> {
    names
        .filter_map(|name| {
            let (service, port, _) = outbound(scope, name)?;
            Some(route::of_service(scope, name, service, port.number))
        })
        .collect()
}

/// The clusters of these names, as far as they exist.
pub(super) fn clusters<'a>(scope: Scope<'_>, names: impl Iterator<Item = &'a str>) -> Vec<Cluster> {
    names.filter_map(|name| of_name(scope, name)).collect()
}

/// Service, port and subset that a name of a cluster or route means.
fn outbound<'a>(scope: Scope<'a>, name: &str) -> Option<(&'a Service, &'a Port, String)> {
    let name: ClusterName = name.parse().ok()?;
    let service = scope.service(&name.host).filter(|_| name.direction == Direction::Outbound)?;
    Some((service, service.port(name.port)?, name.subset))
}

/// What a DestinationRule says of a cluster, with the rule.
fn settings<'a>(
    scope: Scope<'a>,
    service: &Service,
    port: u16,
    subset: &str,
) -> Option<(Policy<'a>, Option<&'a Rule>)> {
    let rule = scope.rule(service).map(|rule| &**rule);
    let subset = if subset.is_empty() { None } else { Some(rule?.subset(subset)?) };
    let policy = rule.map_or_else(Policy::default, |rule| {
        let of_subset = subset.and_then(|subset| subset.traffic_policy.as_ref());
        policy::for_port(rule.policy.as_ref(), of_subset, port)
    });
    Some((policy, rule))
}

/// TLS that a rule demands of clients and that gRPC's library cannot begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTls {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Namespace and name of the DestinationRule.
    pub rule: (String, String),
    /// Its mode, `SIMPLE` or `MUTUAL`.
    pub mode: &'static str,
}

/// What of these clusters an application that speaks xDS itself cannot do:
/// gRPC's bootstrap names the certificates of the mesh alone.
pub(crate) fn without_tls(scope: Scope<'_>, names: &BTreeSet<Arc<str>>) -> Vec<NoTls> {
    let found = names.iter().filter_map(|cluster| {
        let (service, port, subset) = outbound(scope, cluster)?;
        let (policy, rule) = settings(scope, service, port.number, &subset)?;
        let mode = policy.tls?.mode();
        let is_lost = matches!(mode, TlsMode::Simple | TlsMode::Mutual);
        let rule = rule.filter(|_| is_lost)?.origin.clone();
        Some(NoTls { cluster: cluster.clone(), rule, mode: mode.as_str_name() })
    });
    found.collect()
}

fn of_name(scope: Scope<'_>, name: &str) -> Option<Cluster> {
    let (service, port, subset) = outbound(scope, name)?;
    let (settings, _) = settings(scope, service, port.number, &subset)?;
    let mut cluster = Cluster {
        name: name.into(),
        alt_stat_name: cluster::stat_name(name),
        cluster_discovery_type: cluster::of_type(DiscoveryType::Eds),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name.into() }),
        ..Cluster::default()
    };
    if policy::simple(&settings) == Some(SimpleLb::LeastRequest) {
        cluster.lb_policy = LbPolicy::LeastRequest.into();
    }
    cluster::spread_by_hash(&mut cluster, &settings);
    if cluster.lb_policy() == LbPolicy::Maglev {
        // The one way of hashing that gRPC knows.
        (cluster.lb_policy, cluster.lb_config) = (LbPolicy::RingHash.into(), None);
    }
    let limit =
        settings.connection_pool.and_then(|pool| pool.http.as_ref()).map(|http| http.http2_max_requests);
    if let Some(limit) = limit.and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0) {
        let thresholds = Thresholds { max_requests: Some(limit), ..Thresholds::default() };
        cluster.circuit_breakers =
            Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() });
    }
    // Never by itself: nobody can tell whether the server was made for it.
    if settings.tls.map(|tls| tls.mode()) == Some(TlsMode::IstioMutual) {
        cluster.transport_socket = Some(tls::proxyless_client(&cluster::identities(scope, service)));
    }
    Some(cluster)
}

fn router() -> HttpFilter {
    filter("envoy.filters.http.router", &Router::default())
}

#[cfg(test)]
mod tests;
