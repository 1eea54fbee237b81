//! Rules of calls from other origins.

use proto::istio::networking::v1alpha3::CorsPolicy;
use proto::istio::networking::v1alpha3::string_match::MatchType;

use super::headers;
use crate::validate::Checker;

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) fn check(at: &str, cors: &CorsPolicy, checker: &mut Checker) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let at = format!("{at}.allowOrigins[{index}]");
        match &origin.match_type {
            Some(MatchType::Exact(text) | MatchType::Prefix(text)) if !text.is_empty() => {}
            Some(MatchType::Regex(text)) if !text.is_empty() => checker.regex(&format!("{at}.regex"), text),
            _ => checker.error(at, "is empty: give exact, prefix or regex"),
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        checker.one_of(&format!("{at}.allowMethods[{index}]"), method, &METHODS);
    }
    for (list, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| *name != "*") {
            headers::name(&format!("{at}.{list}[{index}]"), name, checker);
        }
    }
    let field = format!("{at}.maxAge");
    checker.duration(&field, cors.max_age.as_ref());
    if let Some(age) = cors.max_age.filter(|age| age.nanos > 0) {
        checker.error(field, format!("{age} is finer than a second, which is not supported"));
    }
    if !cors.allow_origin.is_empty() {
        let message = if cors.allow_origins.is_empty() {
            "is the old form: use allowOrigins"
        } else {
            "has no effect beside allowOrigins: remove it"
        };
        checker.warn(format!("{at}.allowOrigin"), message);
    }
}
