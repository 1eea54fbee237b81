//! What a route does to a request, and where a redirect sends it.

use proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proto::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use proto::envoy::config::route::v3::{RedirectAction, Route, RouteAction};

use super::matching::runtime_share;
use super::request::{Header, Request, substitute};
use super::route;
use super::summary::percent;

/// What a route sets, in words.
pub(super) fn settings(action: &RouteAction) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(time) = action.timeout.filter(|time| *time != prost_types::Duration::default()) {
        all.push(format!("timeout {time}"));
    }
    if let Some(retry) = &action.retry_policy {
        all.push(format!("{} retries on {}", retry.num_retries.unwrap_or(1), retry.retry_on));
    }
    if !action.prefix_rewrite.is_empty() {
        all.push(format!("the path begins with {} then", action.prefix_rewrite));
    }
    if let Some(rewrite) = &action.regex_rewrite {
        all.push(format!("the path is rewritten to {}", rewrite.substitution));
    }
    if let Some(HostRewriteSpecifier::HostRewriteLiteral(host)) = &action.host_rewrite_specifier {
        all.push(format!("the host is {host} then"));
    }
    for mirror in &action.request_mirror_policies {
        let part = runtime_share(mirror.runtime_fraction.as_ref());
        all.push(format!("{} are mirrored to {}", percent(part), mirror.cluster));
    }
    all
}

/// What a route makes of path and host.
pub(super) fn rewrite(action: &RouteAction, route: &Route, original: &Request, request: &mut Request) {
    let length = route.r#match.as_ref().map_or(0, |matcher| route::matched_length(matcher, original));
    if !action.prefix_rewrite.is_empty() {
        let rest = original.path.get(length..).unwrap_or_default();
        request.path = format!("{}{rest}", action.prefix_rewrite);
    } else if let Some(path) =
        action.regex_rewrite.as_ref().and_then(|rule| substitute(rule, original.bare_path()))
    {
        let query = original.path.get(original.bare_path().len()..).unwrap_or_default();
        request.path = format!("{path}{query}");
    }
    match &action.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => request.authority.clone_from(host),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            if let Header::Value(host) = original.header(name) {
                request.authority = host.into_owned();
            }
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rule)) => {
            if let Some(host) = substitute(rule, original.bare_path()) {
                request.authority = host;
            }
        }
        _ => {}
    }
}

/// Status and target of a redirect.
pub(super) fn location(redirect: &RedirectAction, route: &Route, request: &Request) -> (u16, String) {
    let status = match redirect.response_code() {
        RedirectResponseCode::MovedPermanently => 301,
        RedirectResponseCode::Found => 302,
        RedirectResponseCode::SeeOther => 303,
        RedirectResponseCode::TemporaryRedirect => 307,
        RedirectResponseCode::PermanentRedirect => 308,
    };
    let scheme = match &redirect.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https",
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => scheme,
        _ => request.scheme,
    };
    let host =
        if redirect.host_redirect.is_empty() { request.authority.as_str() } else { &redirect.host_redirect };
    let host = match redirect.port_redirect {
        0 => host.to_owned(),
        port => format!("{}:{port}", route::without_port(host)),
    };
    let query = if redirect.strip_query {
        ""
    } else {
        request.path.get(request.bare_path().len()..).unwrap_or_default()
    };
    let path = match &redirect.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) if !path.is_empty() => {
            if path.contains('?') {
                path.clone()
            } else {
                format!("{path}{query}")
            }
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if !prefix.is_empty() => {
            let length = route.r#match.as_ref().map_or(0, |matcher| route::matched_length(matcher, request));
            format!("{prefix}{}{query}", request.bare_path().get(length..).unwrap_or_default())
        }
        Some(PathRewriteSpecifier::RegexRewrite(rule)) => {
            format!("{}{query}", substitute(rule, request.bare_path()).unwrap_or_default())
        }
        _ => format!("{}{query}", request.bare_path()),
    };
    (status, format!("{scheme}://{host}{path}"))
}
