//! Filters for protocols that Envoy knows besides HTTP.

use prost::Message as _;
use proto::Any;
use proto::envoy::config::listener::v3::{Filter, filter};
use proto::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use proto::envoy::extensions::filters::network::redis_proxy::v3::RedisProxy;
use proto::envoy::extensions::filters::network::redis_proxy::v3::redis_proxy::prefix_routes::Route;
use proto::envoy::extensions::filters::network::redis_proxy::v3::redis_proxy::{
    ConnPoolSettings, PrefixRoutes,
};
use proto::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::FilterConfig;
use proto::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::filter_config::PortSpecifier;

use crate::generate::cluster::dns;
use crate::generate::filter::{Direction, Place};
use crate::generate::message::{network_filter, seconds};
use crate::protocol::Protocol;
use crate::scope::Scope;

const MYSQL: &str = "envoy.filters.network.mysql_proxy";

/// The filter that counts what passes, if a switch asks for it, and whether it
/// is the last of its chain.
pub(super) fn filter(
    scope: Scope<'_>,
    protocol: Protocol,
    stat_prefix: &str,
    cluster: &str,
) -> (Option<Filter>, bool) {
    let features = &scope.snapshot.settings.features;
    match protocol {
        Protocol::Mongo if features.mongo_filter => {
            let config = MongoProxy { stat_prefix: stat_prefix.into(), ..MongoProxy::default() };
            (Some(network_filter("envoy.filters.network.mongo_proxy", &config)), false)
        }
        // Not a part of stock Envoy: only for one that says it has it.
        Protocol::MySql if features.mysql_filter && scope.proxy.has_extension(MYSQL) => {
            (Some(mysql(stat_prefix)), false)
        }
        Protocol::Redis if features.redis_filter => {
            (Some(network_filter("envoy.filters.network.redis_proxy", &redis(stat_prefix, cluster))), true)
        }
        _ => (None, false),
    }
}

fn redis(stat_prefix: &str, cluster: &str) -> RedisProxy {
    RedisProxy {
        latency_in_micros: true,
        stat_prefix: stat_prefix.into(),
        settings: Some(ConnPoolSettings { op_timeout: seconds(5), ..ConnPoolSettings::default() }),
        prefix_routes: Some(PrefixRoutes {
            catch_all_route: Some(Route { cluster: cluster.into(), ..Route::default() }),
            ..PrefixRoutes::default()
        }),
        ..RedisProxy::default()
    }
}

/// The first field of its message, the prefix, is all that it needs.
#[derive(Clone, PartialEq, prost::Message)]
struct MySqlProxy {
    #[prost(string, tag = "1")]
    stat_prefix: String,
}

fn mysql(stat_prefix: &str) -> Filter {
    let config = MySqlProxy { stat_prefix: stat_prefix.into() };
    let config = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy".into(),
        value: config.encode_to_vec().into(),
    };
    Filter { name: MYSQL.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// Name of the filter that resolves the server name of a connection. Istio names
/// it so; EnvoyFilters match by it.
pub(super) const NAME_FILTER: &str = "envoy.extensions.filters.network.sni_dynamic_forward_proxy";

/// Asks DNS for the name that a connection's TLS greeting bears, for a service
/// whose wildcard stands for names that nobody lists.
pub(super) fn name_filter(scope: Scope<'_>, place: Place<'_>) -> Option<Filter> {
    let is_outbound = place.direction == Direction::Outbound;
    let service = place.service.filter(|service| is_outbound && service.is_dynamic())?;
    let config = FilterConfig {
        dns_cache_config: Some(dns::cache(scope, service.host.as_str())),
        port_specifier: Some(PortSpecifier::PortValue(place.port.into())),
        ..FilterConfig::default()
    };
    Some(network_filter(NAME_FILTER, &config))
}
