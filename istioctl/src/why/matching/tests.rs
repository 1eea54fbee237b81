use super::*;

fn request(path: &str, headers: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".into(),
        scheme: "http",
        authority: "a:1".into(),
        path: path.into(),
        headers: headers.iter().map(|(name, value)| ((*name).into(), Some((*value).into()))).collect(),
        is_http2: false,
    }
}

fn of(name: &str, specifier: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

#[test]
fn a_missing_header_fits_nothing_but_absence() {
    let exact = HeaderMatchSpecifier::ExactMatch("x".into());
    let empty = request("/", &[]);
    assert_eq!(header(&of("a", exact.clone()), &empty), Tri::No);
    let inverted = HeaderMatcher { invert_match: true, ..of("a", exact) };
    assert_eq!(header(&inverted, &empty), Tri::No);
    let as_empty = HeaderMatcher { treat_missing_header_as_empty: true, ..inverted.clone() };
    assert_eq!(header(&as_empty, &empty), Tri::Yes);
    assert_eq!(header(&inverted, &request("/", &[("a", "y")])), Tri::Yes);
    let present = of("a", HeaderMatchSpecifier::PresentMatch(true));
    assert_eq!(header(&present, &empty), Tri::No);
    let absent = HeaderMatcher { invert_match: true, ..present };
    assert_eq!(header(&absent, &empty), Tri::Yes);
    assert_eq!(header(&absent, &request("/", &[("a", "")])), Tri::No);
}

#[test]
fn values_of_one_header_are_one_text() {
    let two = request("/", &[("a", "x"), ("a", "y")]);
    assert_eq!(header(&of("a", HeaderMatchSpecifier::ExactMatch("x,y".into())), &two), Tri::Yes);
    assert_eq!(header(&of("A", HeaderMatchSpecifier::SuffixMatch("y".into())), &two), Tri::Yes);
    assert_eq!(header(&of(":path", HeaderMatchSpecifier::ExactMatch("/".into())), &two), Tri::Yes);
    let range = HeaderMatchSpecifier::RangeMatch(proto::envoy::r#type::v3::Int64Range { start: 1, end: 3 });
    for (value, wanted) in [("1", Tri::Yes), ("3", Tri::No), ("x", Tri::No)] {
        assert_eq!(header(&of("n", range.clone()), &request("/", &[("n", value)])), wanted);
    }
}

#[test]
fn patterns_fit_the_whole_text() {
    assert_eq!(regex("v[0-9]", "v1"), Tri::Yes);
    assert_eq!(regex("v[0-9]", "v12"), Tri::No);
    assert_eq!(regex("a|b", "ab"), Tri::No);
    assert_eq!(regex("(", "("), Tri::Unknown);
}

#[test]
fn query_parameters_are_compared_as_they_are_written() {
    let exact = |text: &str| QueryParameterMatcher {
        name: "a".into(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(text.into())),
            ignore_case: false,
        })),
    };
    let present = QueryParameterMatcher { name: "a".into(), query_parameter_match_specifier: None };
    assert_eq!(query(&exact("b"), &request("/x?c&a=b&a=d", &[])), Tri::Yes);
    assert_eq!(query(&exact("d"), &request("/x?a=b&a=d", &[])), Tri::No);
    assert_eq!(query(&exact("b"), &request("/x", &[])), Tri::No);
    assert_eq!(query(&present, &request("/x?a", &[])), Tri::Yes);
}

#[test]
fn templates_become_patterns() {
    for (pattern, path, wanted) in [
        ("/a/{*}", "/a/b", Tri::Yes),
        ("/a/{*}", "/a/b/c", Tri::No),
        ("/a/{**}", "/a/b/c", Tri::Yes),
        ("/a/{*}/c", "/a/b.x/c", Tri::Yes),
        ("/a.b", "/axb", Tri::No),
        ("/a/*", "/a/b", Tri::Yes),
        ("/x/{id=a/*}/z", "/x/a/1/z", Tri::Yes),
        ("/x/{id}", "/x/1", Tri::Yes),
    ] {
        assert_eq!(regex(&template(pattern), path), wanted, "{pattern} {path}");
    }
}

#[test]
fn addresses_lie_in_ranges() {
    let range = CidrRange { address_prefix: "10.1.0.0".into(), prefix_len: Some(16) };
    assert_eq!(bits(&range, "10.1.2.3".parse().unwrap()), Some(16));
    assert_eq!(bits(&range, "10.2.2.3".parse().unwrap()), None);
    assert_eq!(bits(&range, "::1".parse().unwrap()), None);
    assert_eq!(cidr(&range, None), Tri::Unknown);
}
