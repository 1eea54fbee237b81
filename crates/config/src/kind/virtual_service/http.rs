//! Rules of HTTP routes.

use proto::istio::networking::v1alpha3::http_redirect::RedirectPort;
use proto::istio::networking::v1alpha3::{HttpRedirect, HttpRoute};

use super::{destination, fault, headers, matching, weighted};
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

pub(super) fn check(at: &str, route: &HttpRoute, checker: &mut Checker) {
    let actions = [
        !route.route.is_empty(),
        route.redirect.is_some(),
        route.direct_response.is_some(),
        route.delegate.is_some(),
    ];
    match actions.iter().filter(|action| **action).count() {
        0 => checker.error(at, "does nothing: give one of route, redirect, directResponse or delegate"),
        1 => {}
        _ => checker
            .error(at, "does too much: only one of route, redirect, directResponse and delegate is possible"),
    }
    for (index, matcher) in route.r#match.iter().enumerate() {
        matching::check(&format!("{at}.match[{index}]"), matcher, checker);
    }
    let weights = route.route.iter().map(|destination| destination.weight);
    weighted(&format!("{at}.route"), weights, checker);
    for (index, destination) in route.route.iter().enumerate() {
        let at = format!("{at}.route[{index}]");
        headers::check(&format!("{at}.headers"), destination.headers.as_ref(), checker);
        self::destination(&format!("{at}.destination"), destination.destination.as_ref(), checker);
    }
    headers::check(&format!("{at}.headers"), route.headers.as_ref(), checker);
    checker.not_yet(&format!("{at}.corsPolicy"), route.cors_policy.is_some());
    checker.not_yet(&format!("{at}.delegate"), route.delegate.is_some());
    checker.duration(&format!("{at}.timeout"), route.timeout.as_ref());
    if let Some(fault) = &route.fault {
        fault::check(&format!("{at}.fault"), fault, checker);
    }
    if let Some(redirect) = &route.redirect {
        self::redirect(&format!("{at}.redirect"), redirect, checker);
    }
    if let Some(retries) = &route.retries {
        checker.not_negative(&format!("{at}.retries.attempts"), retries.attempts);
        checker.duration(&format!("{at}.retries.perTryTimeout"), retries.per_try_timeout.as_ref());
        checker.duration(&format!("{at}.retries.backoff"), retries.backoff.as_ref());
        for condition in retries.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let is_code = condition.parse::<u32>().is_ok_and(|code| (100..600).contains(&code));
            if !is_code && !RETRY_ON.contains(&condition) {
                let message =
                    format!("{condition:?} is no condition: expected a status or {}", RETRY_ON.join(", "));
                checker.error(format!("{at}.retries.retryOn"), message);
            }
        }
        let retries_nothing =
            retries.attempts == 0 && (retries.per_try_timeout.is_some() || !retries.retry_on.is_empty());
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
            checker.regex(&format!("{at}.rewrite.uriRegexRewrite.match"), &regex.r#match);
        }
        let set = route.headers.as_ref().and_then(|headers| headers.request.as_ref());
        let host = set.and_then(|request| request.set.keys().find(|name| headers::is_host(name)));
        if let Some(host) = host.filter(|_| !rewrite.authority.is_empty()) {
            let message = format!("stands beside headers.request.set of {host:?}: set the host once");
            checker.error(format!("{at}.rewrite.authority"), message);
        }
        if route.redirect.is_some() {
            checker.error(format!("{at}.rewrite"), "has no effect beside a redirect: remove one of them");
        }
    }
    if let Some(response) = &route.direct_response
        && !(200..600).contains(&response.status)
    {
        checker.error(
            format!("{at}.directResponse.status"),
            format!("{} is not a status: expected 200 to 599", response.status),
        );
    }
    let percent = route.mirror_percentage.as_ref().map(|percent| percent.value);
    checker.percentage(&format!("{at}.mirrorPercentage"), percent);
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

fn redirect(at: &str, redirect: &HttpRedirect, checker: &mut Checker) {
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
