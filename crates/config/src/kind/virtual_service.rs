//! Rules of `VirtualService`.

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{
    Destination, HttpMatchRequest, HttpRoute, RouteDestination, StringMatch, VirtualService,
};

use crate::validate::Checker;

pub(super) fn check(service: &VirtualService, checker: &mut Checker) {
    let is_delegate = service.hosts.is_empty() && service.gateways.is_empty();
    let has_routes = !(service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty());
    if service.hosts.is_empty() && !(is_delegate && has_delegate_form(service)) {
        checker.error("hosts", "is missing: name at least one host");
    }
    for (index, host) in service.hosts.iter().enumerate() {
        let field = format!("hosts[{index}]");
        if host.parse::<std::net::IpAddr>().is_err() {
            checker.host(&field, host);
        }
        if service.hosts[..index].contains(host) {
            checker.error(field, format!("{host:?} stands twice"));
        }
    }
    if !has_routes {
        checker.error("", "has no http, tcp or tls routes");
    }
    for (index, route) in service.http.iter().enumerate() {
        http(&format!("http[{index}]"), route, checker);
    }
    for (index, route) in service.tcp.iter().enumerate() {
        l4(&format!("tcp[{index}].route"), &route.route, checker);
    }
    for (index, route) in service.tls.iter().enumerate() {
        let at = format!("tls[{index}]");
        if route.r#match.is_empty() {
            checker.error(format!("{at}.match"), "is missing: a TLS route needs sniHosts to match");
        }
        for (number, matcher) in route.r#match.iter().enumerate() {
            if matcher.sni_hosts.is_empty() {
                checker.error(format!("{at}.match[{number}].sniHosts"), "is missing: name at least one host");
            }
        }
        l4(&format!("{at}.route"), &route.route, checker);
    }
}

/// A VirtualService that others delegate to has no hosts; only HTTP routes can be delegated.
fn has_delegate_form(service: &VirtualService) -> bool {
    !service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty()
}

fn http(at: &str, route: &HttpRoute, checker: &mut Checker) {
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
        http_match(&format!("{at}.match[{index}]"), matcher, checker);
    }
    let weights = route.route.iter().map(|destination| destination.weight);
    weighted(&format!("{at}.route"), weights, checker);
    for (index, destination) in route.route.iter().enumerate() {
        self::destination(
            &format!("{at}.route[{index}].destination"),
            destination.destination.as_ref(),
            checker,
        );
    }
    checker.duration(&format!("{at}.timeout"), route.timeout.as_ref());
    if let Some(retries) = &route.retries {
        checker.not_negative(&format!("{at}.retries.attempts"), retries.attempts);
        checker.duration(&format!("{at}.retries.perTryTimeout"), retries.per_try_timeout.as_ref());
        checker.duration(&format!("{at}.retries.backoff"), retries.backoff.as_ref());
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
    if let Some(mirror) = &route.mirror {
        destination(&format!("{at}.mirror"), Some(mirror), checker);
        if !route.mirrors.is_empty() {
            checker.error(format!("{at}.mirrors"), "stands beside mirror: use only one of them");
        }
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        destination(&format!("{at}.mirrors[{index}].destination"), mirror.destination.as_ref(), checker);
    }
}

fn http_match(at: &str, matcher: &HttpMatchRequest, checker: &mut Checker) {
    let single = [
        ("uri", &matcher.uri),
        ("scheme", &matcher.scheme),
        ("method", &matcher.method),
        ("authority", &matcher.authority),
    ];
    for (name, text) in single {
        string(&format!("{at}.{name}"), text.as_ref(), checker);
    }
    let maps = [
        ("headers", &matcher.headers),
        ("withoutHeaders", &matcher.without_headers),
        ("queryParams", &matcher.query_params),
    ];
    for (name, map) in maps {
        for (key, text) in map {
            let at = format!("{at}.{name}.{key}");
            if key.is_empty() {
                checker.error(&at, "has an empty name");
            }
            string(&at, Some(text), checker);
        }
    }
    if matcher.port > 65535 {
        checker.port(&format!("{at}.port"), matcher.port);
    }
    for (key, value) in &matcher.source_labels {
        checker.label(&format!("{at}.sourceLabels.{key}"), key, value);
    }
}

fn string(at: &str, text: Option<&StringMatch>, checker: &mut Checker) {
    match text.and_then(|text| text.match_type.as_ref()) {
        // Envoy has no notion of a header that is any; `*` is Istio's way to say "present".
        Some(MatchType::Regex(pattern)) if pattern != "*" => checker.regex(&format!("{at}.regex"), pattern),
        Some(MatchType::Prefix(prefix)) if prefix.is_empty() => {
            checker.error(format!("{at}.prefix"), "is empty: it would match everything");
        }
        _ => {}
    }
}

fn l4(at: &str, routes: &[RouteDestination], checker: &mut Checker) {
    if routes.is_empty() {
        checker.error(at, "is missing: name at least one destination");
    }
    weighted(at, routes.iter().map(|route| route.weight), checker);
    for (index, route) in routes.iter().enumerate() {
        destination(&format!("{at}[{index}].destination"), route.destination.as_ref(), checker);
    }
}

fn weighted(at: &str, weights: impl Iterator<Item = i32>, checker: &mut Checker) {
    let (mut count, mut total) = (0, 0i64);
    for (index, weight) in weights.enumerate() {
        checker.not_negative(&format!("{at}[{index}].weight"), weight);
        count += 1;
        total += i64::from(weight);
    }
    if count > 1 && total == 0 {
        checker.error(at, "all weights are 0: give at least one destination a weight");
    }
}

fn destination(at: &str, destination: Option<&Destination>, checker: &mut Checker) {
    let Some(destination) = destination else {
        return checker.error(at, "is missing: name the destination's host");
    };
    if destination.host == "*" {
        return checker.error(format!("{at}.host"), "\"*\" is no destination: name a host");
    }
    checker.host(&format!("{at}.host"), &destination.host);
    if let Some(port) = &destination.port {
        checker.port(&format!("{at}.port.number"), port.number);
    }
}
