//! The HTTP connection manager: what happens to requests before they are routed.

pub(super) mod proxy_headers;

use proto::Any;
use proto::envoy::config::core::v3::{Http1ProtocolOptions, Http3ProtocolOptions, HttpProtocolOptions};
use proto::envoy::config::listener::v3::Filter;
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::envoy::extensions::filters::http::cors::v3::Cors;
use proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use proto::envoy::extensions::filters::http::router::v3::Router;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension, http_filter,
};
use proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::istio::mesh::v1alpha1::mesh_config::proxy_path_normalization::NormalizationType;

use super::filter::wasm::Phase;
use super::filter::{
    Place, access_log, alpn, dynamic, ext_authz, grpc_stats, jwt, rbac, session, stats, tracing, wasm,
};
use super::gateway::{Topology, internal_addresses};
use super::message::{ads, network_filter, seconds};
use crate::patch;
use crate::protocol::Protocol;
use crate::scope::Scope;

const FILTER: &str = "envoy.filters.network.http_connection_manager";
/// Headers by which Istio's own proxies tell each other of their workloads.
const PEER_METADATA: [&str; 2] = ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"];

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

/// For requests of the proxy's own workload that no listener of a service takes.
pub(super) fn unknown(
    scope: Scope<'_>,
    place: Place<'_>,
    stat_prefix: &str,
    routes: RouteConfiguration,
) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        ..base(scope, place, stat_prefix)
    };
    network_filter(FILTER, &manager)
}

/// For requests of the proxy's own workload that name their whole destination.
pub(super) fn forward_proxy(scope: Scope<'_>, place: Place<'_>, stat_prefix: &str, routes: &str) -> Filter {
    let base = base(scope, place, stat_prefix);
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.into(),
        })),
        http_protocol_options: Some(Http1ProtocolOptions {
            allow_absolute_url: Some(true),
            ..base.http_protocol_options.clone().unwrap_or_default()
        }),
        proxy_100_continue: false,
        ..base
    };
    network_filter(FILTER, &manager)
}

/// For requests to the proxy's own workload.
pub(super) fn inbound(
    scope: Scope<'_>,
    place: Place<'_>,
    stat_prefix: &str,
    mut routes: RouteConfiguration,
) -> Filter {
    if scope.snapshot.settings.features.metadata_exchange && !scope.proxy.has_module() {
        // What peers with Istio's own proxies say of themselves is not for the workload. The module
        // takes it out itself; here it costs every request an index of its headers.
        routes.request_headers_to_remove.extend(PEER_METADATA.map(str::to_owned));
    }
    let routes = patch::inbound_routes(scope, routes);
    let headers = proxy_headers::of(scope);
    let manager = HttpConnectionManager {
        use_remote_address: Some(false),
        http2_protocol_options: place.protocol.is_http2().then(Default::default),
        forward_client_cert_details: headers.forwarded_certificate().into(),
        set_current_client_cert_details: Some(headers.certificate_details()),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        ..base(scope, place, stat_prefix)
    };
    network_filter(FILTER, &manager)
}

/// For requests from outside; `routes` come by RDS. The server's `name`, where it
/// has one, stands in for the prefix of statistics. `is_quic`: HTTP/3.
pub(super) fn gateway(
    scope: Scope<'_>,
    place: Place<'_>,
    stat_prefix: &str,
    name: &str,
    routes: &str,
    topology: Topology,
    is_quic: bool,
) -> Filter {
    let base = base(scope, place, stat_prefix);
    let describes = matches!(
        topology.forward,
        ForwardClientCertDetails::AppendForward | ForwardClientCertDetails::SanitizeSet
    );
    let manager = HttpConnectionManager {
        use_remote_address: Some(true),
        xff_num_trusted_hops: topology.trusted_proxies,
        internal_address_config: internal_addresses(scope),
        forward_client_cert_details: topology.forward.into(),
        set_current_client_cert_details: describes.then(|| SetCurrentClientCertDetails {
            subject: Some(true),
            cert: true,
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        }),
        http_protocol_options: Some(base.http_protocol_options.clone().unwrap_or_default()),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.into(),
        })),
        stat_prefix: if name.is_empty() { base.stat_prefix.clone() } else { name.into() },
        codec_type: if is_quic { CodecType::Http3 } else { CodecType::Auto }.into(),
        http3_protocol_options: is_quic.then(Http3ProtocolOptions::default),
        ..base
    };
    network_filter(FILTER, &manager)
}

fn base(scope: Scope<'_>, place: Place<'_>, stat_prefix: &str) -> HttpConnectionManager {
    let upgrade = UpgradeConfig { upgrade_type: "websocket".into(), ..UpgradeConfig::default() };
    let traced = tracing::of(scope, place);
    let request_id = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(traced.marks_request_id),
        ..UuidRequestIdConfig::default()
    };
    let mut manager = HttpConnectionManager {
        stat_prefix: format!("{stat_prefix};"),
        http_filters: filters(scope, place),
        tracing: traced.tracing,
        access_log: access_log::http(scope, place),
        stream_idle_timeout: seconds(0),
        proxy_100_continue: true,
        upgrade_configs: vec![upgrade],
        request_id_extension: Some(RequestIdExtension { typed_config: Some(Any::pack(&request_id)) }),
        http_protocol_options: scope
            .proxy
            .http10
            .then(|| Http1ProtocolOptions { accept_http_10: true, ..Http1ProtocolOptions::default() }),
        common_http_protocol_options: scope.proxy.idle_timeout.map(|time| HttpProtocolOptions {
            idle_timeout: Some(time.into()),
            ..HttpProtocolOptions::default()
        }),
        ..HttpConnectionManager::default()
    };
    normalize_paths(scope, &mut manager);
    proxy_headers::of(scope).apply(place.direction, &mut manager);
    manager
}

/// How paths are written before anything looks at them (`pathNormalization`).
fn normalize_paths(scope: Scope<'_>, manager: &mut HttpConnectionManager) {
    let wanted = scope.snapshot.mesh.path_normalization.as_ref();
    let wanted = wanted.map_or(NormalizationType::Default, |wanted| wanted.normalization());
    manager.normalize_path = Some(wanted != NormalizationType::None);
    manager.merge_slashes =
        matches!(wanted, NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes);
    manager.path_with_escaped_slashes_action = match wanted {
        NormalizationType::DecodeAndMergeSlashes => PathWithEscapedSlashesAction::UnescapeAndForward,
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    }
    .into();
}

/// The filters in the order in which a request passes them.
fn filters(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    let extensions = [Phase::Authn, Phase::Authz, Phase::Stats, Phase::Unspecified];
    let [authn, authz, observing, other] = extensions.map(|phase| wasm::http(scope, place, phase));
    let has_extensions = [&authn, &authz, &observing, &other].iter().any(|all| !all.is_empty());
    // The first: it counts what any other refuses, too.
    let mut filters = Vec::from_iter(stats::http(scope, place));
    filters.extend(ext_authz::http(scope, place));
    filters.extend(authn);
    filters.extend(jwt::http(scope, place));
    filters.extend(authz);
    filters.extend(rbac::http(scope, place));
    filters.extend(observing);
    filters.extend(other);
    if place.protocol == Protocol::GrpcWeb {
        filters.push(filter("envoy.filters.http.grpc_web", &GrpcWeb::default()));
    }
    filters.extend(grpc_stats::http(scope, has_extensions));
    filters.extend(alpn::http(scope, place));
    filters.push(filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(filter("envoy.filters.http.cors", &Cors::default()));
    filters.extend(session::http(scope, place));
    filters.extend(dynamic::http(scope, place));
    let router =
        Router { suppress_envoy_headers: proxy_headers::of(scope).hides_envoy(), ..Router::default() };
    filters.push(filter("envoy.filters.http.router", &router));
    filters
}

pub(super) fn filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any::pack(config))),
        ..HttpFilter::default()
    }
}

#[cfg(test)]
mod tests;
