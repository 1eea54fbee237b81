//! When a route applies.

use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::envoy::config::route::v3::route_match::PathSpecifier;
use proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, StringMatch};

use super::claim;
use super::rule::Context;

/// Whether a match can come true at this proxy and port: these conditions are
/// decided here, not by Envoy. One that names gateways does not look at the
/// source, as in Istio.
pub(super) fn applies(matcher: &HttpMatchRequest, context: Context<'_>) -> bool {
    let Context { scope, gateway, port, .. } = context;
    if matcher.port != 0 && matcher.port != u32::from(port) {
        return false;
    }
    if !matcher.gateways.is_empty() {
        return matcher.gateways.iter().any(|name| name == gateway);
    }
    config::matches(&matcher.source_labels, scope.labels())
        && (matcher.source_namespace.is_empty() || matcher.source_namespace == scope.proxy.namespace)
}

/// Whether a route excludes no request, so that later ones are never reached.
pub(in crate::generate) fn is_everything(matcher: &RouteMatch) -> bool {
    let any_path = match &matcher.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex == ".*",
        _ => false,
    };
    any_path
        && matcher.headers.is_empty()
        && matcher.query_parameters.is_empty()
        && matcher.dynamic_metadata.is_empty()
}

/// Envoy's form of a match.
pub(super) fn route_match(matcher: Option<&HttpMatchRequest>) -> RouteMatch {
    let Some(matcher) = matcher else { return super::everything() };
    let (mut headers, mut claims) = (Vec::new(), Vec::new());
    for (name, value) in &matcher.headers {
        match claim::path(name) {
            Some(path) => claims.push(claim::matcher(&path, pattern(value), false)),
            None => headers.push(header(name, value)),
        }
    }
    for (name, value) in &matcher.without_headers {
        match claim::path(name) {
            Some(path) => claims.push(claim::matcher(&path, pattern(value), true)),
            None => headers.push(without_header(name, value)),
        }
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, value) in
        [(":method", &matcher.method), (":authority", &matcher.authority), (":scheme", &matcher.scheme)]
    {
        headers.extend(value.as_ref().map(|value| header(name, value)));
    }
    RouteMatch {
        case_sensitive: Some(!matcher.ignore_uri_case),
        headers,
        query_parameters: matcher.query_params.iter().map(|(name, value)| query(name, value)).collect(),
        path_specifier: Some(path(matcher.uri.as_ref())),
        dynamic_metadata: claims,
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
        // Not a pattern that Envoy knows, but Istio's way to say "present".
        MatchType::Regex(text) if text == "*" => None,
        _ => exactly(value),
    }
}

/// A value to compare with; `None` where there is none.
pub(super) fn exactly(value: &StringMatch) -> Option<MatchPattern> {
    Some(match value.match_type.as_ref()? {
        MatchType::Exact(text) => MatchPattern::Exact(text.clone()),
        MatchType::Prefix(text) => MatchPattern::Prefix(text.clone()),
        MatchType::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    })
}

pub(super) fn string(pattern: MatchPattern) -> StringMatcher {
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
