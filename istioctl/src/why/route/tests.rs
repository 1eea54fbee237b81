use super::*;

fn routes(domains: &[&str], ignores_port: bool) -> RouteConfiguration {
    RouteConfiguration {
        virtual_hosts: domains
            .iter()
            .map(|&domain| VirtualHost {
                name: domain.into(),
                domains: vec![domain.into()],
                ..VirtualHost::default()
            })
            .collect(),
        ignore_port_in_host_matching: ignores_port,
        ..RouteConfiguration::default()
    }
}

fn host<'a>(routes: &'a RouteConfiguration, authority: &str) -> &'a str {
    virtual_host(routes, authority).map_or("none", |host| &host.name)
}

#[test]
fn the_best_domain_wins() {
    let all = routes(&["*", "a.b.c", "*.b.c", "*.c", "a.*", "a.b.*"], true);
    for (authority, wanted) in [
        ("a.b.c", "a.b.c"),
        ("A.B.C:80", "a.b.c"),
        ("x.b.c", "*.b.c"),
        ("a.x.c", "*.c"),
        ("a.b.d", "a.b.*"),
        ("a.x", "a.*"),
        ("x", "*"),
        (".b.c", "*.c"),
    ] {
        assert_eq!(host(&all, authority), wanted, "{authority}");
    }
    let strict = routes(&["a", "a:81"], false);
    assert_eq!((host(&strict, "a:81"), host(&strict, "a:80"), host(&strict, "a")), ("a:81", "none", "a"));
}

#[test]
fn ports_are_cut_off() {
    for (text, wanted) in [
        ("a:1", "a"),
        ("a", "a"),
        ("[::1]:1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("a:x", "a:x"),
        ("a:", "a:"),
    ] {
        assert_eq!(without_port(text), wanted);
    }
}

#[test]
fn paths_fit_in_every_way() {
    let request = |path: &str| Request {
        method: "GET".into(),
        scheme: "http",
        authority: "a".into(),
        path: path.into(),
        headers: Vec::new(),
        is_http2: false,
    };
    let of = |specifier: PathSpecifier, case_sensitive: Option<bool>| RouteMatch {
        path_specifier: Some(specifier),
        case_sensitive,
        ..RouteMatch::default()
    };
    let prefix = |text: &str| PathSpecifier::Prefix(text.into());
    let parts = |text: &str| PathSpecifier::PathSeparatedPrefix(text.into());
    let exact = |text: &str| PathSpecifier::Path(text.into());
    let rows = [
        (of(prefix("/a"), None), "/ab?x", Tri::Yes),
        (of(prefix("/A"), None), "/ab", Tri::No),
        (of(prefix("/A"), Some(false)), "/ab", Tri::Yes),
        (of(parts("/a"), None), "/ab", Tri::No),
        (of(parts("/a"), None), "/a/b", Tri::Yes),
        (of(parts("/a"), None), "/a?b", Tri::Yes),
        (of(exact("/a"), None), "/a?b", Tri::Yes),
        (of(exact("/a"), None), "/a/", Tri::No),
    ];
    for (matcher, path, wanted) in rows {
        assert_eq!(fits(&matcher, &request(path), &|_| None), wanted, "{matcher:?} {path}");
    }
}
