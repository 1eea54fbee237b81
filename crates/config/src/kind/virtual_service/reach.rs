//! Warnings for rules that no request or connection ever comes to.

use std::collections::BTreeMap;

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};

use crate::validate::Checker;

/// With more matches nobody is told: each is compared with all others.
const MOST: usize = 2000;

pub(super) fn check(service: &VirtualService, checker: &mut Checker) {
    let of_http = service.http.iter().map(|rule| rule.r#match.len()).sum::<usize>();
    let of_tcp = service.tcp.iter().map(|rule| rule.r#match.len()).sum::<usize>();
    let of_tls = service.tls.iter().map(|rule| rule.r#match.len()).sum::<usize>();
    if of_http.max(of_tcp).max(of_tls) > MOST {
        return;
    }
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
                prefix.starts_with(shorter) && covers(other, matcher) && !is_same(other, matcher)
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

/// Whether both say the same.
fn is_same(one: &HttpMatchRequest, other: &HttpMatchRequest) -> bool {
    *one == HttpMatchRequest { name: one.name.clone(), ..other.clone() }
}

/// Whether all requests that fit the second fit the first as well, but for the path.
fn covers(one: &HttpMatchRequest, other: &HttpMatchRequest) -> bool {
    let word = |one: &Option<StringMatch>, other: &Option<StringMatch>| one.is_none() || one == other;
    let words = |one: &BTreeMap<String, StringMatch>, other: &BTreeMap<String, StringMatch>| {
        one.iter().all(|(name, value)| other.get(name) == Some(value))
    };
    let ignores_case = one.ignore_uri_case || !other.ignore_uri_case;
    let labels = one.source_labels.iter().all(|(name, value)| other.source_labels.get(name) == Some(value));
    ignores_case
        && labels
        && word(&one.scheme, &other.scheme)
        && word(&one.method, &other.method)
        && word(&one.authority, &other.authority)
        && words(&one.headers, &other.headers)
        && words(&one.without_headers, &other.without_headers)
        && words(&one.query_params, &other.query_params)
        && (one.port == 0 || one.port == other.port)
        && (one.gateways.is_empty() || one.gateways == other.gateways)
        && (one.source_namespace.is_empty() || one.source_namespace == other.source_namespace)
}
