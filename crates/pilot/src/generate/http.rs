//! The HTTP connection manager: what happens to requests before they are routed.

use proto::Any;
use proto::envoy::config::core::v3::Http1ProtocolOptions;
use proto::envoy::config::listener::v3::Filter;
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::envoy::extensions::filters::http::cors::v3::Cors;
use proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use proto::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use proto::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use proto::envoy::extensions::filters::http::router::v3::Router;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
    UpgradeConfig,
};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension, http_filter,
};
use proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::filter::wasm::Phase;
use super::filter::{Place, access_log, alpn, ext_authz, jwt, rbac, stats, tracing, wasm};
use super::message::{ads, network_filter, seconds};
use crate::protocol::Protocol;
use crate::scope::Scope;

const FILTER: &str = "envoy.filters.network.http_connection_manager";

/// For requests of the proxy's own workload; `routes` come by RDS.
pub(super) fn outbound(scope: Scope<'_>, place: Place<'_>, stat_prefix: &str, routes: &str) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.into(),
        })),
        ..base(scope, place, stat_prefix)
    };
    network_filter(FILTER, &manager)
}

/// For requests to the proxy's own workload.
pub(super) fn inbound(
    scope: Scope<'_>,
    place: Place<'_>,
    stat_prefix: &str,
    routes: RouteConfiguration,
) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        http2_protocol_options: place.protocol.is_http2().then(Default::default),
        server_name: "istio-envoy".into(),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: Some(true),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        }),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        ..base(scope, place, stat_prefix)
    };
    network_filter(FILTER, &manager)
}

fn base(scope: Scope<'_>, place: Place<'_>, stat_prefix: &str) -> HttpConnectionManager {
    let upgrade = UpgradeConfig { upgrade_type: "websocket".into(), ..UpgradeConfig::default() };
    let request_id = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(true),
        ..UuidRequestIdConfig::default()
    };
    HttpConnectionManager {
        stat_prefix: format!("{stat_prefix};"),
        http_filters: filters(scope, place),
        tracing: tracing::of(scope, place),
        access_log: access_log::http(scope, place),
        stream_idle_timeout: seconds(0),
        proxy_100_continue: true,
        upgrade_configs: vec![upgrade],
        normalize_path: Some(true),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
        request_id_extension: Some(RequestIdExtension { typed_config: Some(Any::pack(&request_id)) }),
        http_protocol_options: scope
            .proxy
            .http10
            .then(|| Http1ProtocolOptions { accept_http_10: true, ..Http1ProtocolOptions::default() }),
        ..HttpConnectionManager::default()
    }
}

/// The filters in the order in which a request passes them.
fn filters(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..GrpcStats::default()
    };
    let mut filters = ext_authz::http(scope, place);
    filters.extend(wasm::http(scope, place, Phase::Authn));
    filters.extend(jwt::http(scope, place));
    filters.extend(wasm::http(scope, place, Phase::Authz));
    filters.extend(rbac::http(scope, place));
    filters.extend(wasm::http(scope, place, Phase::Stats));
    filters.extend(wasm::http(scope, place, Phase::Unspecified));
    if place.protocol == Protocol::GrpcWeb {
        filters.push(filter("envoy.filters.http.grpc_web", &GrpcWeb::default()));
    }
    filters.push(filter("envoy.filters.http.grpc_stats", &grpc_stats));
    filters.extend(alpn::http(scope, place));
    filters.push(filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(filter("envoy.filters.http.cors", &Cors::default()));
    filters.extend(stats::http(scope, place));
    filters.push(filter("envoy.filters.http.router", &Router::default()));
    filters
}

pub(super) fn filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any::pack(config))),
        ..HttpFilter::default()
    }
}
