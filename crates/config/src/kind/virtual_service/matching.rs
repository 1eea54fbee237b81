//! Rules of what HTTP requests are matched by.

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, StringMatch};

use super::{gateway_names, headers};
use crate::validate::{Checker, is_dns_label};

/// Headers of that name mean claims of the request's token.
const CLAIMS: &str = "@request.auth.claims";

/// `has_gateway` is whether the rule holds at gateways only.
pub(super) fn check(at: &str, matcher: &HttpMatchRequest, has_gateway: bool, checker: &mut Checker) {
    let single = [
        ("uri", &matcher.uri),
        ("scheme", &matcher.scheme),
        ("method", &matcher.method),
        ("authority", &matcher.authority),
    ];
    for (name, text) in single {
        string(&format!("{at}.{name}"), text.as_ref(), false, checker);
    }
    let maps = [
        ("headers", &matcher.headers),
        ("withoutHeaders", &matcher.without_headers),
        ("queryParams", &matcher.query_params),
    ];
    for (name, map) in maps {
        for (key, text) in map {
            let at = format!("{at}.{name}.{key}");
            if name == "queryParams" {
                if key.is_empty() {
                    checker.error(&at, "has an empty name");
                }
            } else if is_claim(key) {
                if !has_gateway {
                    let message =
                        format!("{key:?} is a claim, which only gateways match: bind to a gateway alone");
                    checker.error(&at, message);
                }
            } else {
                headers::name(&at, key, checker);
            }
            string(&at, Some(text), true, checker);
        }
    }
    if matcher.port > 65535 {
        checker.port(&format!("{at}.port"), matcher.port);
    }
    for (key, value) in &matcher.source_labels {
        checker.label(&format!("{at}.sourceLabels.{key}"), key, value);
    }
    gateway_names(at, &matcher.gateways, checker);
    let namespace = &matcher.source_namespace;
    if !namespace.is_empty() && !is_dns_label(namespace) {
        checker.error(format!("{at}.sourceNamespace"), format!("{namespace:?} is not a namespace"));
    }
    if !matcher.gateways.is_empty() && (!namespace.is_empty() || !matcher.source_labels.is_empty()) {
        let message = "names gateways, so sourceNamespace and sourceLabels have no effect: remove them";
        checker.warn(format!("{at}.gateways"), message);
    }
}

/// Whether a header's name means a claim, in one of its two forms.
fn is_claim(name: &str) -> bool {
    let Some(start) = name.get(..CLAIMS.len()) else { return false };
    let rest = &name[CLAIMS.len()..];
    let is_square = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    start.eq_ignore_ascii_case(CLAIMS)
        && (rest.strip_prefix('.').is_some_and(|rest| !rest.is_empty())
            || is_square.is_some_and(|inner| !inner.is_empty()))
}

fn string(at: &str, text: Option<&StringMatch>, may_be_absent: bool, checker: &mut Checker) {
    match text.and_then(|text| text.match_type.as_ref()) {
        // Of what may be absent, `*` is Istio's way to say "present".
        Some(MatchType::Regex(pattern)) if pattern == "*" && may_be_absent => {}
        Some(MatchType::Regex(pattern)) if pattern.is_empty() => {
            checker.error(format!("{at}.regex"), "is empty: leave the match out, or use \".*\"");
        }
        Some(MatchType::Regex(pattern)) => checker.regex(&format!("{at}.regex"), pattern),
        Some(MatchType::Prefix(prefix)) if prefix.is_empty() && at.ends_with(".uri") => {
            checker.warn(format!("{at}.prefix"), "is empty: it matches every path");
        }
        Some(MatchType::Prefix(prefix)) if prefix.is_empty() => {
            checker.error(format!("{at}.prefix"), "is empty: leave the match out, or use regex \".*\"");
        }
        _ => {}
    }
}
