//! Asks DNS for the hosts that requests name, where a cluster leads to whatever
//! host that is. Filter and cluster share a cache of addresses by its name.

use proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::filter_config::ImplementationSpecifier;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::{Direction, Place};
use crate::generate::cluster::dns;
use crate::generate::http;
use crate::protocol::Protocol;
use crate::scope::Scope;

const FILTER: &str = "envoy.filters.http.dynamic_forward_proxy";

/// Filters for requests: one for each service of the port whose wildcard stands
/// for names that nobody lists, and one for hosts that no service names.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    if place.direction != Direction::Outbound {
        return Vec::new();
    }
    let is_any = place.protocol == Protocol::HttpProxy;
    let services = scope.view.by_name.iter().filter(|service| {
        let mut ports = service.ports.iter();
        ports.any(|port| (is_any || port.number == place.port) && dns::names_requests(port.protocol))
    });
    let mut filters: Vec<HttpFilter> =
        services.map(|service| filter(dns::cache(scope, service.host.as_str()))).collect();
    if scope.resolves_unknown() {
        filters.push(filter(dns::unknown(scope)));
    }
    filters
}

fn filter(cache: DnsCacheConfig) -> HttpFilter {
    let config = FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache)),
        ..FilterConfig::default()
    };
    http::filter(FILTER, &config)
}
