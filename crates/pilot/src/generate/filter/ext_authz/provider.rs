//! Servers that decide: extension providers of the mesh's configuration.

use names::ClusterName;
use proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use proto::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri};
use proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use proto::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
};
use proto::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::{ListStringMatcher, StringMatcher};
use proto::envoy::r#type::v3::{HttpStatus, StatusCode};
use proto::istio::mesh::v1alpha1::mesh_config::ExtensionProvider;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::{
    EnvoyExternalAuthorizationGrpcProvider as Grpc, EnvoyExternalAuthorizationHttpProvider as Http,
    EnvoyExternalAuthorizationRequestBody as Body, Provider,
};
use proto::wkt::Duration;

use crate::snapshot::{Snapshot, telemetry};

/// Time for an answer when none is given, in seconds.
const TIMEOUT: i64 = 600;

/// How the server is asked about requests; `None` when it cannot be.
pub(super) fn http(snapshot: &Snapshot, name: &str) -> Option<ExtAuthz> {
    match find(snapshot, name)? {
        Provider::EnvoyExtAuthzHttp(provider) => by_http(snapshot, provider),
        Provider::EnvoyExtAuthzGrpc(provider) => by_grpc(snapshot, provider).map(|(http, _)| http),
        _ => None,
    }
}

/// How the server is asked about connections: `Some(None)` when it only knows
/// requests.
pub(super) fn network(snapshot: &Snapshot, name: &str) -> Option<Option<NetworkExtAuthz>> {
    match find(snapshot, name)? {
        Provider::EnvoyExtAuthzHttp(provider) => by_http(snapshot, provider).map(|_| None),
        Provider::EnvoyExtAuthzGrpc(provider) => by_grpc(snapshot, provider).map(|(_, tcp)| Some(tcp)),
        _ => None,
    }
}

/// The provider of a name that is there once. Names become parts of keys, so
/// only labels of DNS names are taken.
fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Provider> {
    let is_server = |provider: &&ExtensionProvider| {
        matches!(provider.provider, Some(Provider::EnvoyExtAuthzHttp(_) | Provider::EnvoyExtAuthzGrpc(_)))
    };
    let mut named = snapshot.mesh.extension_providers.iter().filter(is_server).filter(|p| p.name == name);
    let found = named.next()?;
    if named.next().is_some() || !config::validate::is_dns_label(name) {
        return None;
    }
    found.provider.as_ref()
}

/// The host and the cluster of `HOST` or `NAMESPACE/HOST`.
fn target(snapshot: &Snapshot, service: &str, port: u32) -> Option<(String, String)> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let host = telemetry::lookup(snapshot, service).ok()?;
    let cluster = ClusterName::outbound(port, "", &host).to_string();
    Some((host.as_str().to_owned(), cluster))
}

fn by_http(snapshot: &Snapshot, provider: &Http) -> Option<ExtAuthz> {
    let (host, cluster) = target(snapshot, &provider.service, provider.port)?;
    let status_on_error = status(&provider.status_on_error)?;
    let is_path = |path: &str| path.starts_with('/') && !path.contains(|c: char| c.is_control());
    if !provider.path_prefix.is_empty() && !is_path(&provider.path_prefix) {
        return None;
    }
    // The older field counts only without the newer one.
    let mut included = &provider.include_request_headers_in_check;
    if included.is_empty() {
        included = &provider.include_headers_in_check;
    }
    let upstream = headers(&provider.headers_to_upstream_on_allow)?;
    let denied = headers(&provider.headers_to_downstream_on_deny)?;
    let allowed = headers(&provider.headers_to_downstream_on_allow)?;
    let has_response = upstream.is_some() || denied.is_some() || allowed.is_some();
    let added = added(provider)?;
    let service = HttpService {
        path_prefix: provider.path_prefix.clone(),
        server_uri: Some(HttpUri {
            // Needed, and not used: the cluster says where the server is.
            uri: format!("http://{host}"),
            timeout: Some(timeout(provider.timeout)?),
            http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
        }),
        authorization_request: (!added.is_empty())
            .then(|| AuthorizationRequest { headers_to_add: added, ..AuthorizationRequest::default() }),
        authorization_response: has_response.then(|| AuthorizationResponse {
            allowed_upstream_headers: upstream,
            allowed_client_headers: denied,
            allowed_client_headers_on_success: allowed,
            ..AuthorizationResponse::default()
        }),
        ..HttpService::default()
    };
    Some(ExtAuthz {
        allowed_headers: headers(included)?,
        status_on_error,
        failure_mode_allow: provider.fail_open,
        clear_route_cache: provider.clear_route_cache,
        transport_api_version: ApiVersion::V3.into(),
        with_request_body: body(provider.include_request_body_in_check.as_ref())?,
        services: Some(Services::HttpService(service)),
        ..ExtAuthz::default()
    })
}

fn by_grpc(snapshot: &Snapshot, provider: &Grpc) -> Option<(ExtAuthz, NetworkExtAuthz)> {
    let (authority, cluster_name) = target(snapshot, &provider.service, provider.port)?;
    let service = GrpcService {
        timeout: Some(timeout(provider.timeout)?),
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name,
            authority,
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let http = ExtAuthz {
        status_on_error: status(&provider.status_on_error)?,
        failure_mode_allow: provider.fail_open,
        clear_route_cache: provider.clear_route_cache,
        transport_api_version: ApiVersion::V3.into(),
        with_request_body: body(provider.include_request_body_in_check.as_ref())?,
        services: Some(Services::GrpcService(service.clone())),
        ..ExtAuthz::default()
    };
    let tcp = NetworkExtAuthz {
        stat_prefix: "tcp.".into(),
        failure_mode_allow: provider.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        grpc_service: Some(service),
        ..NetworkExtAuthz::default()
    };
    Some((http, tcp))
}

/// `None` for a status that Envoy does not know.
fn status(text: &str) -> Option<Option<HttpStatus>> {
    if text.is_empty() {
        return Some(None);
    }
    let code =
        StatusCode::try_from(text.parse::<i32>().ok()?).ok().filter(|code| *code != StatusCode::Empty)?;
    Some(Some(HttpStatus { code: code.into() }))
}

fn timeout(timeout: Option<Duration>) -> Option<prost_types::Duration> {
    let timeout = timeout.unwrap_or(Duration { seconds: TIMEOUT, nanos: 0 });
    (timeout.as_nanos() >= 0).then(|| timeout.into())
}

/// `None` when nothing of the body could be sent, which Envoy refuses.
fn body(body: Option<&Body>) -> Option<Option<BufferSettings>> {
    let Some(body) = body else { return Some(None) };
    let settings = BufferSettings {
        max_request_bytes: body.max_request_bytes,
        allow_partial_message: body.allow_partial_message,
        pack_as_bytes: body.pack_as_bytes,
    };
    (body.max_request_bytes > 0).then_some(Some(settings))
}

/// Headers that every question has.
fn added(provider: &Http) -> Option<Vec<HeaderValue>> {
    let value = |(key, value): (&String, &String)| {
        let is_good = config::is_header_name(key) && !value.contains(['\0', '\r', '\n']);
        is_good.then(|| HeaderValue { key: key.clone(), value: value.clone(), ..HeaderValue::default() })
    };
    provider.include_additional_headers_in_check.iter().map(value).collect()
}

/// Names of headers, each with a `*` at its start or end if at all; `None` when
/// one is nothing else, `Some(None)` when there are none.
fn headers(names: &[String]) -> Option<Option<ListStringMatcher>> {
    if names.is_empty() {
        return Some(None);
    }
    let pattern = |name: &String| {
        let pattern = match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(""), _) => return None,
            (Some(end), _) => MatchPattern::Suffix(end.into()),
            (None, Some(start)) => MatchPattern::Prefix(start.into()),
            (None, None) => MatchPattern::Exact(name.clone()),
        };
        Some(StringMatcher { ignore_case: true, match_pattern: Some(pattern) })
    };
    let patterns = names.iter().map(pattern).collect::<Option<_>>()?;
    Some(Some(ListStringMatcher { patterns }))
}
