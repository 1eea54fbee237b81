//! Warnings for rules that no request or connection ever comes to.

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};

use crate::validate::Checker;

pub(super) fn check(service: &VirtualService, checker: &mut Checker) {
    let http: Vec<Vec<HttpMatchRequest>> = service
        .http
        .iter()
        .map(|rule| {
            rule.r#match.iter().map(|one| HttpMatchRequest { name: String::new(), ..one.clone() }).collect()
        })
        .collect();
    duplicates("http", &http, checker);
    prefixes(&service.http, checker);
    let tcp: Vec<_> = service.tcp.iter().map(|rule| rule.r#match.clone()).collect();
    duplicates("tcp", &tcp, checker);
    let tls: Vec<_> = service.tls.iter().map(|rule| rule.r#match.clone()).collect();
    duplicates("tls", &tls, checker);
}

/// Rules after one without matches, and matches that an earlier rule has too.
fn duplicates<M: PartialEq>(kind: &str, rules: &[Vec<M>], checker: &mut Checker) {
    let mut takes_all = None;
    let mut known: Vec<(usize, &M)> = Vec::new();
    for (number, matches) in rules.iter().enumerate() {
        let at = format!("{kind}[{number}]");
        if let Some(before) = takes_all {
            checker
                .warn(&at, format!("is never reached: {kind}[{before}] has no match and takes everything"));
        }
        if matches.is_empty() {
            takes_all = takes_all.or(Some(number));
        }
        if takes_all.is_some() {
            continue;
        }
        for (index, matcher) in matches.iter().enumerate() {
            match known.iter().find(|(_, other)| *other == matcher) {
                Some((before, _)) => checker.warn(
                    format!("{at}.match[{index}]"),
                    format!("is never reached: {kind}[{before}] has it too"),
                ),
                None => known.push((number, matcher)),
            }
        }
    }
}

/// A match by prefix that an earlier one by a shorter prefix covers.
fn prefixes(rules: &[HttpRoute], checker: &mut Checker) {
    let mut known: Vec<(usize, &HttpMatchRequest, &str)> = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        for (index, matcher) in rule.r#match.iter().enumerate() {
            let Some(prefix) = prefix(matcher) else { continue };
            let covering = known.iter().find(|(_, other, shorter)| {
                prefix != *shorter && prefix.starts_with(shorter) && same_otherwise(other, matcher)
            });
            if let Some((before, _, shorter)) = covering {
                let message =
                    format!("is never reached: http[{before}] matches the prefix {shorter:?} before");
                checker.warn(format!("http[{number}].match[{index}].uri.prefix"), message);
            }
            known.push((number, matcher, prefix));
        }
    }
}

fn prefix(matcher: &HttpMatchRequest) -> Option<&str> {
    match matcher.uri.as_ref()?.match_type.as_ref()? {
        MatchType::Prefix(prefix) if !prefix.is_empty() => Some(prefix),
        _ => None,
    }
}

/// Whether both say the same of all but the path.
fn same_otherwise(one: &HttpMatchRequest, other: &HttpMatchRequest) -> bool {
    let without_path = |matcher: &HttpMatchRequest| HttpMatchRequest {
        name: String::new(),
        stat_prefix: String::new(),
        uri: None::<StringMatch>,
        ..matcher.clone()
    };
    without_path(one) == without_path(other)
}
