//! Envoy's matchers for the values that users write.
//!
//! A value is literal but for a `*` at its start or end. Where Envoy has only a
//! regular expression for it, everything else in it is escaped.

use std::net::IpAddr;

use proto::envoy::config::core::v3::CidrRange;
use proto::envoy::config::route::v3::HeaderMatcher;
use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
};

/// Where the JWT filter puts what a token says.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// The key of it.
pub(crate) const JWT_PAYLOAD: &str = "payload";

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

pub(super) fn exact(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Exact(text.into()))
}

pub(super) fn prefix(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Prefix(text.into()))
}

pub(super) fn suffix(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Suffix(text.into()))
}

/// An expression of RE2, which must match as a whole.
pub(super) fn regex(pattern: impl Into<String>) -> StringMatcher {
    string(MatchPattern::SafeRegex(RegexMatcher { regex: pattern.into(), ..RegexMatcher::default() }))
}

/// Any text but the empty one.
pub(super) fn anything() -> StringMatcher {
    regex(".+")
}

/// The expression that matches this text only.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// `x`, `x*`, `*x` or `*`, with `scheme` in front of what is matched.
pub(super) fn value(value: &str, scheme: &str) -> StringMatcher {
    if value == "*" {
        return anything();
    }
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(end), _) if scheme.is_empty() => suffix(end),
        (Some(end), _) => regex(format!("{scheme}.*{}", escape(end))),
        (None, Some(start)) => prefix(format!("{scheme}{start}")),
        (None, None) => exact(format!("{scheme}{value}")),
    }
}

/// A header with such a value; `*` is any.
pub(super) fn header(name: &str, wanted: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = if wanted == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..value(wanted, "") })
    };
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

/// `IP` or `IP/LENGTH`.
pub(super) fn cidr(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| length.parse::<u8>().ok())?;
    (length <= most)
        .then(|| CidrRange { address_prefix: address.to_string(), prefix_len: Some(length.into()) })
}

pub(super) fn string_value(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(ValuePattern::StringMatch(matcher)) }
}

/// One of some matchers, of which there is at least one.
pub(super) fn any_of(mut matchers: Vec<ValueMatcher>) -> ValueMatcher {
    if matchers.len() == 1 {
        return matchers.remove(0);
    }
    ValueMatcher { match_pattern: Some(ValuePattern::OrMatch(OrMatcher { value_matchers: matchers })) }
}

/// A list with such a value in it.
pub(super) fn list(matcher: ValueMatcher) -> ValueMatcher {
    let one = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(matcher))) };
    ValueMatcher { match_pattern: Some(ValuePattern::ListMatch(Box::new(one))) }
}

/// Dynamic metadata of a filter; `None` for a path that Envoy would refuse.
pub(super) fn metadata(filter: &str, path: &[&str], matcher: ValueMatcher) -> Option<MetadataMatcher> {
    if filter.is_empty() || path.is_empty() || path.iter().any(|key| key.is_empty()) {
        return None;
    }
    let segment = |key: &&str| PathSegment { segment: Some(path_segment::Segment::Key((*key).to_owned())) };
    Some(MetadataMatcher {
        filter: filter.into(),
        path: path.iter().map(segment).collect(),
        value: Some(matcher),
        ..MetadataMatcher::default()
    })
}

/// What a verified token says at a path of claims.
pub(super) fn claim(path: &[&str], matcher: ValueMatcher) -> Option<MetadataMatcher> {
    let path: Vec<&str> = std::iter::once(JWT_PAYLOAD).chain(path.iter().copied()).collect();
    metadata(JWT_FILTER, &path, matcher)
}

/// A claim that is such a value, or a list with one in it.
pub(super) fn claim_or_list(path: &[&str], matcher: ValueMatcher) -> Option<MetadataMatcher> {
    let either = ValuePattern::OrMatch(OrMatcher { value_matchers: vec![list(matcher.clone()), matcher] });
    claim(path, ValueMatcher { match_pattern: Some(either) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_at_the_ends_only() {
        for (text, want) in [
            ("a", exact("a")),
            ("a*", prefix("a")),
            ("*a", suffix("a")),
            ("*", regex(".+")),
            ("a*b", exact("a*b")),
            ("**", suffix("*")),
        ] {
            assert_eq!(value(text, ""), want, "{text}");
        }
        assert_eq!(value("*/sa/a.b[0]", "spiffe://"), regex(r"spiffe://.*/sa/a\.b\[0\]"));
        assert_eq!(value("td/ns/*", "spiffe://"), prefix("spiffe://td/ns/"));
        assert_eq!(value("*", "spiffe://"), regex(".+"));
    }

    #[test]
    fn reads_addresses_and_networks() {
        let range = |text: &str| {
            cidr(text).map(|range| format!("{}/{}", range.address_prefix, range.prefix_len.unwrap()))
        };
        assert_eq!(range("1.2.3.4").as_deref(), Some("1.2.3.4/32"));
        assert_eq!(range("10.1.2.3/8").as_deref(), Some("10.1.2.3/8"));
        assert_eq!(range("2001:db8::/32").as_deref(), Some("2001:db8::/32"));
        assert_eq!(range("::1").as_deref(), Some("::1/128"));
        for text in ["", "a", "1.2.3.4/33", "1.2.3.4/", "::/129", "fe80::1%eth0", "1.2.3.4/-1", "/8"] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
