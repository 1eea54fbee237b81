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
    Tracing, UpgradeConfig,
};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension, http_filter,
};
use proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use proto::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use proto::envoy::r#type::v3::Percent;

use super::message::{ads, network_filter, seconds};
use crate::protocol::Protocol;
use crate::scope::Scope;

const FILTER: &str = "envoy.filters.network.http_connection_manager";

/// For requests of the proxy's own workload; `routes` come by RDS.
pub(super) fn outbound(scope: Scope<'_>, stat_prefix: &str, routes: &str, protocol: Protocol) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.into(),
        })),
        ..base(scope, stat_prefix, protocol)
    };
    network_filter(FILTER, &manager)
}

/// For requests to the proxy's own workload.
pub(super) fn inbound(
    scope: Scope<'_>,
    stat_prefix: &str,
    routes: RouteConfiguration,
    protocol: Protocol,
) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        http2_protocol_options: protocol.is_http2().then(Default::default),
        server_name: "istio-envoy".into(),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: Some(true),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        }),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        ..base(scope, stat_prefix, protocol)
    };
    network_filter(FILTER, &manager)
}

fn base(scope: Scope<'_>, stat_prefix: &str, protocol: Protocol) -> HttpConnectionManager {
    let upgrade = UpgradeConfig { upgrade_type: "websocket".into(), ..UpgradeConfig::default() };
    let request_id = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(true),
        ..UuidRequestIdConfig::default()
    };
    HttpConnectionManager {
        stat_prefix: format!("{stat_prefix};"),
        http_filters: filters(protocol),
        tracing: scope.snapshot.mesh.enable_tracing.then(|| tracing(scope)),
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

/// The filters in the order in which a request passes them. Telemetry's filter
/// would stand before the router.
fn filters(protocol: Protocol) -> Vec<HttpFilter> {
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..GrpcStats::default()
    };
    let mut filters = Vec::new();
    if protocol == Protocol::GrpcWeb {
        filters.push(filter("envoy.filters.http.grpc_web", &GrpcWeb::default()));
    }
    filters.push(filter("envoy.filters.http.grpc_stats", &grpc_stats));
    filters.push(filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(filter("envoy.filters.http.cors", &Cors::default()));
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

/// What spans say of the proxy, whether or not there is a collector yet.
fn tracing(scope: Scope<'_>) -> Tracing {
    let percent = |value| Some(Percent { value });
    let dry_run = |action: &str, what: &str, key: &str| {
        let segment = PathSegment {
            segment: Some(path_segment::Segment::Key(format!("istio_dry_run_{action}_shadow_{key}"))),
        };
        CustomTag {
            tag: format!("istio.authorization.dry_run.{action}_policy.{what}"),
            r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
                kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(Default::default())) }),
                metadata_key: Some(MetadataKey {
                    key: "envoy.filters.http.rbac".into(),
                    path: vec![segment],
                }),
                default_value: String::new(),
            })),
        }
    };
    let literal = |tag: &str, value: &str| CustomTag {
        tag: tag.into(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.into() })),
    };
    let proxy = scope.proxy;
    let own =
        |key: &str, default: &'static str| proxy.labels.get(key).map_or(default, String::as_str).to_owned();
    Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(1.0),
        overall_sampling: percent(100.0),
        custom_tags: vec![
            dry_run("allow", "name", "effective_policy_id"),
            dry_run("allow", "result", "engine_result"),
            dry_run("deny", "name", "effective_policy_id"),
            dry_run("deny", "result", "engine_result"),
            literal("istio.canonical_revision", &own(names::label::CANONICAL_REVISION, "latest")),
            literal("istio.canonical_service", &own(names::label::CANONICAL_NAME, "unknown")),
            literal(
                "istio.cluster_id",
                if proxy.cluster_id.is_empty() { "unknown" } else { &proxy.cluster_id },
            ),
            literal("istio.mesh_id", if proxy.mesh_id.is_empty() { "unknown" } else { &proxy.mesh_id }),
            literal("istio.namespace", &proxy.namespace),
        ],
        ..Tracing::default()
    }
}
