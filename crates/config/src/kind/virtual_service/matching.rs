//! Rules of what HTTP requests are matched by.

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, StringMatch};

use super::headers;
use crate::validate::Checker;

pub(super) fn check(at: &str, matcher: &HttpMatchRequest, checker: &mut Checker) {
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
}

fn string(at: &str, text: Option<&StringMatch>, may_be_absent: bool, checker: &mut Checker) {
    match text.and_then(|text| text.match_type.as_ref()) {
        // Of what may be absent, `*` is Istio's way to say "present".
        Some(MatchType::Regex(pattern)) if pattern == "*" && may_be_absent => {}
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
