//! Rules of HTTP routes.

use proto::istio::networking::v1alpha3::http_body::Specifier as Body;
use proto::istio::networking::v1alpha3::http_redirect::RedirectPort;
use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRoute};

use super::{cors, destination, fault, headers, matching, weighted};
use crate::validate::Checker;

/// Conditions of Envoy; it ignores others without a word.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Statuses that Envoy redirects with.
const REDIRECTS: [u32; 6] = [0, 301, 302, 303, 307, 308];

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// In a VirtualService that others delegate to.
    pub(super) in_delegate: bool,
    /// In one that holds at gateways only.
    pub(super) has_gateway: bool,
}

/// Largest body of a direct response, bytes; from the second on it is a burden.
const MAX_BODY: usize = 1024 * 1024;
const LARGE_BODY: usize = 100 * 1024;

pub(super) fn check(at: &str, route: &HttpRoute, place: Place, checker: &mut Checker) {
    conflicts(at, route, place, checker);
    for (index, matcher) in route.r#match.iter().enumerate() {
        matching::check(&format!("{at}.match[{index}]"), matcher, place.has_gateway, checker);
    }
    let weights = route.route.iter().map(|destination| destination.weight);
    weighted(&format!("{at}.route"), weights, checker);
    for (index, destination) in route.route.iter().enumerate() {
        let at = format!("{at}.route[{index}]");
        headers::check(&format!("{at}.headers"), destination.headers.as_ref(), checker);
        self::destination(&format!("{at}.destination"), destination.destination.as_ref(), checker);
    }
    headers::check(&format!("{at}.headers"), route.headers.as_ref(), checker);
    if let Some(cors) = &route.cors_policy {
        cors::check(&format!("{at}.corsPolicy"), cors, checker);
    }
    if let Some(delegate) = route.delegate.as_ref().filter(|delegate| delegate.name.is_empty()) {
        let message = format!("is missing: name a VirtualService without hosts in {:?}", delegate.namespace);
        checker.error(format!("{at}.delegate.name"), message);
    }
    checker.duration(&format!("{at}.timeout"), route.timeout.as_ref());
    if let Some(fault) = &route.fault {
        fault::check(&format!("{at}.fault"), fault, checker);
    }
    if let Some(redirect) = &route.redirect {
        self::redirect(&format!("{at}.redirect"), redirect, &route.r#match, checker);
    }
    if let Some(retries) = &route.retries {
        checker.not_negative(&format!("{at}.retries.attempts"), retries.attempts);
        checker.duration(&format!("{at}.retries.perTryTimeout"), retries.per_try_timeout.as_ref());
        checker.duration(&format!("{at}.retries.backoff"), retries.backoff.as_ref());
        for condition in retries.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let is_code = condition.parse::<u32>().is_ok_and(is_status);
            if !is_code && !RETRY_ON.contains(&condition) {
                let message =
                    format!("{condition:?} is no condition: expected a status or {}", RETRY_ON.join(", "));
                checker.error(format!("{at}.retries.retryOn"), message);
            }
        }
        let says_more = retries.per_try_timeout.is_some()
            || !retries.retry_on.is_empty()
            || retries.retry_remote_localities.is_some();
        let retries_nothing = retries.attempts == 0 && says_more;
        if retries_nothing {
            checker.error(
                format!("{at}.retries"),
                "attempts is 0, so the other retry settings have no effect: remove them or set attempts",
            );
        }
    }
    if let Some(rewrite) = &route.rewrite {
        if rewrite.uri.is_empty() && rewrite.authority.is_empty() && rewrite.uri_regex_rewrite.is_none() {
            checker.error(format!("{at}.rewrite"), "is empty: give uri, authority or uriRegexRewrite");
        }
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            if !rewrite.uri.is_empty() {
                checker
                    .error(format!("{at}.rewrite"), "has both uri and uriRegexRewrite: only one is possible");
            }
            let at = format!("{at}.rewrite.uriRegexRewrite");
            for (field, text) in [("match", &regex.r#match), ("rewrite", &regex.rewrite)] {
                if text.is_empty() {
                    checker.error(format!("{at}.{field}"), "is missing: give both match and rewrite");
                }
            }
            checker.regex(&format!("{at}.match"), &regex.r#match);
            headers::literal(&format!("{at}.rewrite"), &regex.rewrite, checker);
        }
        headers::literal(&format!("{at}.rewrite.uri"), &rewrite.uri, checker);
        headers::literal(&format!("{at}.rewrite.authority"), &rewrite.authority, checker);
        let host = headers::host_of(route.headers.as_ref());
        if let Some(host) = host.filter(|_| !rewrite.authority.is_empty()) {
            let message = format!("stands beside {host:?} in headers.request: set the host once");
            checker.error(format!("{at}.rewrite.authority"), message);
        }
    }
    if let Some(response) = &route.direct_response {
        direct_response(&format!("{at}.directResponse"), response, checker);
    }
    let percent = route.mirror_percentage.as_ref().map(|percent| percent.value);
    checker.percentage(&format!("{at}.mirrorPercentage"), percent);
    if route.mirror_percent.is_some() {
        checker.warn(format!("{at}.mirrorPercent"), "is the old form: use mirrorPercentage");
    }
    let old_percent = route.mirror_percent.as_ref().map(|percent| f64::from(percent.value));
    checker.percentage(&format!("{at}.mirrorPercent"), old_percent);
    if let Some(mirror) = &route.mirror {
        destination(&format!("{at}.mirror"), Some(mirror), checker);
        if !route.mirrors.is_empty() {
            checker.error(format!("{at}.mirrors"), "stands beside mirror: use only one of them");
        }
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let percent = mirror.percentage.as_ref().map(|percent| percent.value);
        checker.percentage(&format!("{at}.mirrors[{index}].percentage"), percent);
        destination(&format!("{at}.mirrors[{index}].destination"), mirror.destination.as_ref(), checker);
    }
}

/// What cannot stand together.
fn conflicts(at: &str, route: &HttpRoute, place: Place, checker: &mut Checker) {
    let (redirect, response) = (route.redirect.is_some(), route.direct_response.is_some());
    if route.delegate.is_some() && place.in_delegate {
        checker.error(
            format!("{at}.delegate"),
            "is not possible in one that is delegated to: give it hosts, or move the rules there",
        );
    }
    if route.delegate.is_some() && !place.in_delegate {
        if redirect || !route.route.is_empty() {
            checker.error(at, "does too much: a rule with delegate has neither route nor redirect");
        }
        return;
    }
    match [!route.route.is_empty(), redirect, response].iter().filter(|action| **action).count() {
        0 => checker.error(at, "does nothing: give one of route, redirect, directResponse or delegate"),
        1 => {}
        _ => checker.error(at, "does too much: only one of route, redirect and directResponse is possible"),
    }
    let answer = if redirect { "redirect" } else { "directResponse" };
    for (field, is_set) in [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())] {
        if (redirect || response) && is_set {
            let message = format!("has no effect beside {answer}: remove one of them");
            checker.error(format!("{at}.{field}"), message);
        }
    }
}

/// Whether HTTP has a status of that number.
fn is_status(code: u32) -> bool {
    matches!(
        code,
        100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307..=308
            | 400..=418
            | 421..=426
            | 428..=429
            | 431
            | 451
            | 500..=508
            | 510..=511
    )
}

fn direct_response(at: &str, response: &HttpDirectResponse, checker: &mut Checker) {
    if !(200..600).contains(&response.status) {
        let message = format!("{} is not a status: expected 200 to 599", response.status);
        checker.error(format!("{at}.status"), message);
    }
    let size = match response.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        Some(Body::String(text)) => text.len(),
        Some(Body::Bytes(bytes)) => bytes.len(),
        None => 0,
    };
    if size > MAX_BODY {
        checker.error(format!("{at}.body"), format!("has {size} bytes, more than the {MAX_BODY} allowed"));
    } else if size > LARGE_BODY {
        checker.warn(format!("{at}.body"), format!("has {size} bytes, which every proxy gets and keeps"));
    }
}

fn redirect(at: &str, redirect: &HttpRedirect, matches: &[HttpMatchRequest], checker: &mut Checker) {
    let prefix = &redirect.prefix_rewrite;
    if !redirect.uri.is_empty() && !prefix.is_empty() {
        checker.error(at, "has both uri and prefixRewrite: only one is possible");
    }
    let is_prefix = |matcher: &HttpMatchRequest| match &matcher.uri {
        Some(uri) => matches!(uri.match_type, Some(MatchType::Prefix(_))),
        None => true,
    };
    if !prefix.is_empty() && !matches.iter().all(is_prefix) {
        let message = format!("{prefix:?} replaces a prefix: match uri by prefix only, or use uri");
        checker.error(format!("{at}.prefixRewrite"), message);
    }
    let is_empty =
        [&redirect.uri, prefix, &redirect.authority, &redirect.scheme].iter().all(|text| text.is_empty());
    if is_empty && redirect.redirect_port.is_none() {
        checker.error(at, "is empty: give uri, authority, scheme or port");
    }
    for (field, text) in
        [("uri", &redirect.uri), ("prefixRewrite", prefix), ("authority", &redirect.authority)]
    {
        headers::literal(&format!("{at}.{field}"), text, checker);
    }
    if !REDIRECTS.contains(&redirect.redirect_code) {
        let message =
            format!("{} is no redirect: expected 301, 302, 303, 307 or 308", redirect.redirect_code);
        checker.error(format!("{at}.redirectCode"), message);
    }
    if let Some(RedirectPort::Port(port)) = &redirect.redirect_port {
        checker.port(&format!("{at}.port"), *port);
    }
    if !redirect.scheme.is_empty() {
        checker.one_of(&format!("{at}.scheme"), &redirect.scheme, &["http", "https"]);
    }
}
