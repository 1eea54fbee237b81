//! Matches of claims in the token of a request, which users write as headers
//! named `@request.auth.claims`.

use proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher, list_matcher, value_matcher,
};

use super::matching;

const HEADER: &str = "@request.auth.claims";

/// The claim that a header's name means: `@request.auth.claims.a.b` or
/// `@request.auth.claims[a][b]`.
pub(super) fn path(name: &str) -> Option<Vec<&str>> {
    let start = name.get(..HEADER.len())?;
    if !start.eq_ignore_ascii_case(HEADER) {
        return None;
    }
    let rest = &name[HEADER.len()..];
    let parts: Vec<&str> = match rest.strip_prefix('.') {
        Some(rest) => rest.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    // Envoy refuses routes with an empty key.
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

/// Compares a claim, which may be a text or a list of them, with what the filter
/// that checked the token has left of it.
pub(super) fn matcher(claim: &[&str], value: Option<MatchPattern>, is_inverted: bool) -> MetadataMatcher {
    let key = |name: &str| PathSegment { segment: Some(path_segment::Segment::Key(name.into())) };
    let value = ValueMatcher {
        match_pattern: Some(match value {
            Some(pattern) => value_matcher::MatchPattern::StringMatch(matching::string(pattern)),
            None => value_matcher::MatchPattern::PresentMatch(true),
        }),
    };
    let list =
        ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value.clone()))) };
    let list = ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) };
    let either = OrMatcher { value_matchers: vec![list, value] };
    MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: std::iter::once("payload").chain(claim.iter().copied()).map(key).collect(),
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }),
        invert: is_inverted,
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn claims_are_written_in_two_ways() {
        assert_eq!(path("@request.auth.claims.group.id"), Some(vec!["group", "id"]));
        assert_eq!(path("@Request.Auth.Claims[a.b][c]"), Some(vec!["a.b", "c"]));
        for none in [
            "x",
            "@request.auth.claims",
            "@request.auth.claims.",
            "@request.auth.claims[]",
            "@request.auth.claims.a..b",
            "é",
        ] {
            assert_eq!(path(none), None, "{none}");
        }
    }
}
