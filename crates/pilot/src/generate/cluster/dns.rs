//! Clusters whose endpoints Envoy finds by DNS.

use std::net::IpAddr;

use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DnsLookupFamily, LbPolicy,
};
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
use proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

use super::draft::Draft;
use crate::generate::message::address;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::Service;

/// Name of the resolver.
const CARES: &str = "envoy.network.dns_resolver.cares";
/// Queries on one socket before another is opened (`PILOT_DNS_CARES_UDP_MAX_QUERIES`).
const QUERIES: u32 = 100;
/// Spread of the times between two queries (`PILOT_DNS_JITTER_DURATION`).
const JITTER: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
/// Name of the cache of addresses of hosts that no service names.
const UNKNOWN: &str = "allow_any_dfp_dns_cache";
/// Name of the cluster type that resolves the name in each request.
const DYNAMIC: &str = "envoy.clusters.dynamic_forward_proxy";

/// Families of addresses that the proxy can reach.
pub(in crate::generate) fn family(scope: Scope<'_>) -> DnsLookupFamily {
    let ips = &scope.proxy.ips;
    if ips.iter().all(IpAddr::is_ipv4) {
        DnsLookupFamily::V4Only
    } else if ips.iter().all(IpAddr::is_ipv6) {
        DnsLookupFamily::V6Only
    } else if scope.snapshot.settings.features.dual_stack {
        DnsLookupFamily::All
    } else {
        DnsLookupFamily::V4Only
    }
}

/// Sets how names are resolved. The fields are those that Istio sets; Envoy
/// marks them deprecated in favour of an extension.
#[allow(deprecated)]
pub(super) fn set(scope: Scope<'_>, service: &Service, cluster: &mut Cluster) {
    let family = if service.races_connections { DnsLookupFamily::All } else { family(scope) };
    cluster.set_dns_lookup_family(family);
    cluster.dns_refresh_rate = scope.snapshot.mesh.dns_refresh_rate.map(Into::into);
    cluster.dns_jitter = Some(JITTER);
    cluster.respect_dns_ttl = true;
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: CARES.into(),
        typed_config: Some(Any::pack(&CaresDnsResolverConfig {
            udp_max_queries: Some(QUERIES),
            ..CaresDnsResolverConfig::default()
        })),
    });
}

/// Whether names can be read from connections of a protocol.
pub(super) fn names_hosts(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls)
}

/// Whether requests of a protocol can be read.
pub(in crate::generate) fn names_requests(protocol: Protocol) -> bool {
    names_hosts(protocol) && protocol.is_http()
}

/// The cache of addresses of a wildcard service, which filters share with its clusters.
pub(in crate::generate) fn cache(scope: Scope<'_>, host: &str) -> DnsCacheConfig {
    DnsCacheConfig {
        name: format!("{host}_dfp_dns_cache"),
        dns_lookup_family: family(scope).into(),
        ..DnsCacheConfig::default()
    }
}

/// The cache of addresses of hosts that no service names. A proxy that answers
/// its workload's DNS queries asks itself, so that both get the same answers.
pub(in crate::generate) fn unknown(scope: Scope<'_>) -> DnsCacheConfig {
    let resolver = || {
        let (host, port) = dns_proxy(scope.proxy.says("DNS_PROXY_ADDR"));
        let resolvers = vec![address(&host, port)];
        let config = CaresDnsResolverConfig { resolvers, ..CaresDnsResolverConfig::default() };
        TypedExtensionConfig { name: CARES.into(), typed_config: Some(Any::pack(&config)) }
    };
    DnsCacheConfig {
        name: UNKNOWN.into(),
        dns_lookup_family: family(scope).into(),
        max_hosts: Some(scope.snapshot.settings.features.dynamic_dns_max_hosts),
        typed_dns_resolver_config: scope.proxy.dns_capture.then(resolver),
        ..DnsCacheConfig::default()
    }
}

/// Where a proxy answers DNS queries; where agents do by default when it says no address.
fn dns_proxy(text: &str) -> (String, u16) {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        Some((host.parse::<IpAddr>().ok()?.to_string(), port.parse().ok()?))
    });
    parts.unwrap_or_else(|| ("127.0.0.1".to_owned(), names::port::AGENT_DNS))
}

/// Makes it a cluster that resolves the name in each request.
/// `is_insecure`: it need not ask for and check that name in TLS.
pub(super) fn set_dynamic(cluster: &mut Cluster, cache: DnsCacheConfig, is_insecure: bool) {
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
    let config = ClusterConfig {
        allow_insecure_cluster_options: is_insecure,
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)),
        ..ClusterConfig::default()
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: DYNAMIC.into(),
        typed_config: Some(Any::pack(&config)),
    }));
}

/// Lets a cluster that resolves names be without a check of the name.
pub(super) fn allow_insecure(draft: &mut Draft) {
    let Some(ClusterDiscoveryType::ClusterType(kind)) = &mut draft.cluster.cluster_discovery_type else {
        return;
    };
    let config = kind.typed_config.as_ref().and_then(|config| config.unpack::<ClusterConfig>().ok());
    if let Some(mut config) = config {
        config.allow_insecure_cluster_options = true;
        kind.typed_config = Some(Any::pack(&config));
    }
}
