//! Envoy's matchers of texts, headers, query parameters, addresses and metadata.

use std::net::IpAddr;

use proto::envoy::config::core::v3::{CidrRange, RuntimeFractionalPercent};
use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use proto::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use proto::envoy::r#type::matcher::v3::{
    MetadataMatcher, PathMatcher, StringMatcher, ValueMatcher, double_matcher, list_matcher, path_matcher,
};
use proto::envoy::r#type::v3::FractionalPercent;
use proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use regex::Regex;
use serde_json::Value;

use super::request::{Header, Request};
use super::tri::Tri;

/// Whether the whole text fits a pattern; Envoy's RE2 and this program's library
/// read the same patterns but for rare ones.
pub(super) fn regex(pattern: &str, text: &str) -> Tri {
    Regex::new(&format!("^(?s:{pattern})$")).map_or(Tri::Unknown, |regex| regex.is_match(text).into())
}

/// Whether a text fits.
pub(super) fn string(matcher: &StringMatcher, text: &str) -> Tri {
    let ignores = matcher.ignore_case;
    let lower = |text: &str| if ignores { text.to_ascii_lowercase() } else { text.to_owned() };
    let value = lower(text);
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => (value == lower(wanted)).into(),
        Some(MatchPattern::Prefix(wanted)) => value.starts_with(&lower(wanted)).into(),
        Some(MatchPattern::Suffix(wanted)) => value.ends_with(&lower(wanted)).into(),
        Some(MatchPattern::Contains(wanted)) => value.contains(&lower(wanted)).into(),
        Some(MatchPattern::SafeRegex(wanted)) => regex(&wanted.regex, text),
        Some(MatchPattern::Custom(_)) | None => Tri::Unknown,
    }
}

/// A matcher of texts in words.
pub(super) fn show(matcher: &StringMatcher) -> String {
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => text.clone(),
        Some(MatchPattern::Prefix(text)) => format!("{text}*"),
        Some(MatchPattern::Suffix(text)) => format!("*{text}"),
        Some(MatchPattern::Contains(text)) => format!("*{text}*"),
        Some(MatchPattern::SafeRegex(regex)) => format!("/{}/", regex.regex),
        Some(MatchPattern::Custom(_)) | None => "something of its own".into(),
    }
}

/// Whether a path without its query fits.
pub(super) fn path(matcher: &PathMatcher, request: &Request) -> Tri {
    match &matcher.rule {
        Some(path_matcher::Rule::Path(matcher)) => string(matcher, request.bare_path()),
        None => Tri::Unknown,
    }
}

/// Whether a header fits.
pub(super) fn header(matcher: &HeaderMatcher, request: &Request) -> Tri {
    let found = request.header(&matcher.name);
    let specifier = matcher.header_match_specifier.as_ref();
    let value = match &found {
        Header::Unknown => {
            // That it is there is known.
            return match specifier {
                None | Some(HeaderMatchSpecifier::PresentMatch(_)) => presence(matcher, true).into(),
                _ => Tri::Unknown,
            };
        }
        Header::Missing if !matcher.treat_missing_header_as_empty => {
            // Whatever is said of its value is not so, turned round or not.
            return match specifier {
                None | Some(HeaderMatchSpecifier::PresentMatch(_)) => presence(matcher, false).into(),
                _ => Tri::No,
            };
        }
        Header::Missing => "",
        Header::Value(value) => value,
    };
    let fits = match specifier {
        None => Tri::Yes,
        Some(HeaderMatchSpecifier::PresentMatch(present)) => (*present).into(),
        Some(HeaderMatchSpecifier::ExactMatch(wanted)) => (wanted.is_empty() || value == wanted).into(),
        Some(HeaderMatchSpecifier::PrefixMatch(wanted)) => value.starts_with(wanted.as_str()).into(),
        Some(HeaderMatchSpecifier::SuffixMatch(wanted)) => value.ends_with(wanted.as_str()).into(),
        Some(HeaderMatchSpecifier::ContainsMatch(wanted)) => value.contains(wanted.as_str()).into(),
        Some(HeaderMatchSpecifier::SafeRegexMatch(wanted)) => regex(&wanted.regex, value),
        Some(HeaderMatchSpecifier::StringMatch(wanted)) => string(wanted, value),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            value.parse::<i64>().is_ok_and(|number| (range.start..range.end).contains(&number)).into()
        }
    };
    if matcher.invert_match { !fits } else { fits }
}

/// Whether a header that only has to be there, or not, is so.
fn presence(matcher: &HeaderMatcher, is_there: bool) -> bool {
    let wanted = !matches!(matcher.header_match_specifier, Some(HeaderMatchSpecifier::PresentMatch(false)));
    (is_there == wanted) != matcher.invert_match
}

/// A matcher of headers in words.
pub(super) fn show_header(matcher: &HeaderMatcher) -> String {
    let not = if matcher.invert_match { "not " } else { "" };
    let wanted = match matcher.header_match_specifier.as_ref() {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => "present".into(),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => "absent".into(),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => text.clone(),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => format!("{text}*"),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => format!("*{text}"),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => format!("*{text}*"),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => format!("/{}/", regex.regex),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => show(matcher),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => format!("{}..{}", range.start, range.end),
    };
    format!("{} {not}{wanted}", matcher.name)
}

/// Whether a query parameter fits; Envoy compares it as it is written.
pub(super) fn query(matcher: &QueryParameterMatcher, request: &Request) -> Tri {
    let mut pairs = request.query().split('&').filter(|pair| !pair.is_empty());
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == matcher.name).then_some(value)
    });
    match (&matcher.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::PresentMatch(wanted)), value) => {
            (value.is_some() == *wanted).into()
        }
        (None, value) => value.is_some().into(),
        (Some(QueryParameterMatchSpecifier::StringMatch(_)), None) => Tri::No,
        (Some(QueryParameterMatchSpecifier::StringMatch(matcher)), Some(value)) => string(matcher, value),
    }
}

/// How many bits of a range an address fits; `None` when it does not.
pub(super) fn bits(range: &CidrRange, address: IpAddr) -> Option<u32> {
    let prefix: IpAddr = range.address_prefix.parse().ok()?;
    let length = range.prefix_len.unwrap_or(0);
    let net = ipnet::IpNet::new(prefix, u8::try_from(length).ok()?).ok()?;
    net.contains(&address).then_some(length)
}

/// Whether an address is in a range; one that is not known may be.
pub(super) fn cidr(range: &CidrRange, address: Option<IpAddr>) -> Tri {
    address.map_or(Tri::Unknown, |address| bits(range, address).is_some().into())
}

/// A range in words.
pub(super) fn show_cidr(range: &CidrRange) -> String {
    format!("{}/{}", range.address_prefix, range.prefix_len.unwrap_or(0))
}

/// Whether dynamic metadata fits. `None` where it cannot be known.
pub(super) fn metadata(matcher: &MetadataMatcher, filter: Option<&Value>) -> Tri {
    let mut value = filter;
    for segment in &matcher.path {
        let Some(Segment::Key(key)) = &segment.segment else { return Tri::Unknown };
        value = value.and_then(|value| value.get(key));
    }
    let Some(wanted) = &matcher.value else { return Tri::Unknown };
    let fits = self::value(wanted, value);
    if matcher.invert { !fits } else { fits }
}

fn value(matcher: &ValueMatcher, value: Option<&Value>) -> Tri {
    match &matcher.match_pattern {
        Some(ValuePattern::NullMatch(_)) => value.is_none_or(Value::is_null).into(),
        Some(ValuePattern::PresentMatch(wanted)) => (value.is_some() == *wanted).into(),
        Some(ValuePattern::BoolMatch(wanted)) => (value.and_then(Value::as_bool) == Some(*wanted)).into(),
        Some(ValuePattern::StringMatch(matcher)) => {
            value.and_then(Value::as_str).map_or(Tri::No, |text| string(matcher, text))
        }
        Some(ValuePattern::DoubleMatch(matcher)) => {
            let Some(number) = value.and_then(Value::as_f64) else { return Tri::No };
            match &matcher.match_pattern {
                Some(double_matcher::MatchPattern::Exact(wanted)) => {
                    ((number - wanted).abs() < f64::EPSILON).into()
                }
                Some(double_matcher::MatchPattern::Range(range)) => {
                    (range.start..range.end).contains(&number).into()
                }
                None => Tri::Unknown,
            }
        }
        Some(ValuePattern::ListMatch(list)) => match &list.match_pattern {
            Some(list_matcher::MatchPattern::OneOf(matcher)) => {
                let items = value.and_then(Value::as_array);
                Tri::any(items.into_iter().flatten().map(|item| self::value(matcher, Some(item))))
            }
            None => Tri::Unknown,
        },
        Some(ValuePattern::OrMatch(any)) => {
            Tri::any(any.value_matchers.iter().map(|matcher| self::value(matcher, value)))
        }
        None => Tri::Unknown,
    }
}

/// A share from 0 to 1.
pub(super) fn share(percent: &FractionalPercent) -> f64 {
    let of = match percent.denominator() {
        DenominatorType::Hundred => 100.0,
        DenominatorType::TenThousand => 10_000.0,
        DenominatorType::Million => 1_000_000.0,
    };
    (f64::from(percent.numerator) / of).min(1.0)
}

/// The share that a setting has unless the runtime says something else.
pub(super) fn runtime_share(percent: Option<&RuntimeFractionalPercent>) -> f64 {
    percent.and_then(|percent| percent.default_value.as_ref()).map_or(1.0, share)
}

/// The pattern of a path template (`/a/{*}/b`, `/a/{**}`).
pub(super) fn template(template: &str) -> String {
    let mut pattern = String::new();
    let mut rest = template;
    while let Some(start) = rest.find(['{', '*']) {
        pattern += &regex::escape(&rest[..start]);
        let (inner, after) = if rest[start..].starts_with('{') {
            let end = rest[start..].find('}').map_or(rest.len(), |end| start + end);
            (&rest[(start + 1).min(end)..end], rest.get(end + 1..).unwrap_or_default())
        } else {
            let stars = rest[start..].chars().take_while(|c| *c == '*').count();
            (&rest[start..start + stars], &rest[start + stars..])
        };
        // NAME=PATTERN, NAME alone stands for one part.
        let inner = inner.split_once('=').map_or(inner, |(_, pattern)| pattern);
        match inner {
            "**" => pattern += ".*",
            inner if inner.contains('/') || inner.contains('*') && inner != "*" => {
                pattern += &self::template(inner)
            }
            _ => pattern += "[^/]+",
        }
        rest = after;
    }
    pattern += &regex::escape(rest);
    pattern
}

#[cfg(test)]
mod tests;
