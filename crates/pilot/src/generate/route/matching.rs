//! When a route applies.

use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::envoy::config::route::v3::route_match::PathSpecifier;
use proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, StringMatch};

use crate::scope::Scope;
use crate::snapshot::virtual_service::MESH_GATEWAY;

/// Whether a match can come true at this proxy and port: these conditions are
/// decided here, not by Envoy.
pub(super) fn applies(matcher: &HttpMatchRequest, scope: Scope<'_>, port: u16) -> bool {
    let for_mesh = matcher.gateways.is_empty() || matcher.gateways.iter().any(|name| name == MESH_GATEWAY);
    for_mesh
        && (matcher.port == 0 || matcher.port == u32::from(port))
        && config::matches(&matcher.source_labels, scope.labels())
        && (matcher.source_namespace.is_empty() || matcher.source_namespace == scope.proxy.namespace)
}

/// Whether a match excludes no request, so that later routes are never reached.
pub(super) fn is_everything(matcher: &HttpMatchRequest) -> bool {
    let any_path = match matcher.uri.as_ref().and_then(|uri| uri.match_type.as_ref()) {
        None => true,
        Some(MatchType::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
        Some(MatchType::Regex(pattern)) => pattern == ".*",
        Some(MatchType::Exact(_)) => false,
    };
    any_path
        && matcher.headers.is_empty()
        && matcher.without_headers.is_empty()
        && matcher.query_params.is_empty()
        && matcher.method.is_none()
        && matcher.scheme.is_none()
        && matcher.authority.is_none()
}

/// Envoy's form of a match.
pub(super) fn route_match(matcher: Option<&HttpMatchRequest>) -> RouteMatch {
    let Some(matcher) = matcher else { return super::everything() };
    let mut headers: Vec<HeaderMatcher> =
        matcher.headers.iter().map(|(name, value)| header(name, value)).collect();
    headers.extend(matcher.without_headers.iter().map(|(name, value)| without_header(name, value)));
    for (name, value) in
        [(":method", &matcher.method), (":authority", &matcher.authority), (":scheme", &matcher.scheme)]
    {
        headers.extend(value.as_ref().map(|value| header(name, value)));
    }
    // Pseudo headers first, then by name, as Istio sorts them.
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    RouteMatch {
        case_sensitive: Some(!matcher.ignore_uri_case),
        headers,
        query_parameters: matcher.query_params.iter().map(|(name, value)| query(name, value)).collect(),
        path_specifier: Some(path(matcher.uri.as_ref())),
        ..RouteMatch::default()
    }
}

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.into(), ..RegexMatcher::default() }
}

fn path(uri: Option<&StringMatch>) -> PathSpecifier {
    match uri.and_then(|uri| uri.match_type.as_ref()) {
        None => PathSpecifier::Prefix("/".into()),
        Some(MatchType::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(MatchType::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(MatchType::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    }
}

/// A value to compare with; `None` stands for any.
fn pattern(value: &StringMatch) -> Option<MatchPattern> {
    match value.match_type.as_ref()? {
        MatchType::Exact(text) => Some(MatchPattern::Exact(text.clone())),
        MatchType::Prefix(text) => Some(MatchPattern::Prefix(text.clone())),
        MatchType::Regex(text) if text == "*" => None,
        MatchType::Regex(text) => Some(MatchPattern::SafeRegex(regex(text))),
    }
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = match pattern(value) {
        Some(pattern) => HeaderMatchSpecifier::StringMatch(string(pattern)),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

fn without_header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let matcher = header(name, value);
    // A header that is not there does not have the value either.
    let compares = matches!(matcher.header_match_specifier, Some(HeaderMatchSpecifier::StringMatch(_)));
    HeaderMatcher { invert_match: true, treat_missing_header_as_empty: compares, ..matcher }
}

fn query(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match pattern(value) {
        Some(pattern) => QueryParameterMatchSpecifier::StringMatch(string(pattern)),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.into(), query_parameter_match_specifier: Some(specifier) }
}
