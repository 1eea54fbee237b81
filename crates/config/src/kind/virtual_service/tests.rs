use crate::{Severity, yaml};

/// What is said of a VirtualService, each as `FIELD: MESSAGE`.
fn said(spec: &str) -> Vec<(Severity, String)> {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {spec}\n"
    );
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems
        .into_iter()
        .map(|problem| (problem.severity, format!("{}: {}", problem.field, problem.message)))
        .collect()
}

fn check(spec: &str, severity: Severity, want: &str) {
    let all = said(spec);
    let is_said = all.iter().any(|(is, text)| *is == severity && text.starts_with(&format!("spec.{want}")));
    assert!(is_said, "{spec}: {all:#?}");
    assert_eq!(all.iter().map(|(severity, _)| *severity).max(), Some(severity), "{spec}: {all:#?}");
}

/// One rule at a gateway.
fn at_gateway(rule: &str) -> String {
    format!("{{hosts: [a.com], gateways: [gw], http: [{{{rule}}}]}}")
}

/// One rule with a destination.
fn rule(inner: &str) -> String {
    format!("{{hosts: [a], http: [{{{inner}, route: [{{destination: {{host: a}}}}]}}]}}")
}

#[test]
fn what_istio_takes_is_taken() {
    for spec in [
        "{hosts: [a], http: [{delegate: {name: b, namespace: c}, match: [{uri: {prefix: /a}}]}]}",
        "{http: [{route: [{destination: {host: a}}]}]}",
        "{hosts: ['*'], gateways: [gw, other/gw], http: [{redirect: {uri: /a}}]}",
        "{hosts: [a], tcp: [{match: [{port: 80, destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: a}}]}]}",
        "{hosts: ['*.a.com'], tls: [{match: [{sniHosts: [b.a.com]}], route: [{destination: {host: a}}]}]}",
        "{hosts: [a], http: [{route: [{destination: {host: '*.a.com'}}]}]}",
    ] {
        assert_eq!(said(spec), [], "{spec}");
    }
    for inner in [
        "corsPolicy: {allowOrigins: [{exact: a}], allowMethods: [GET, '*'], allowHeaders: ['*', x], maxAge: 1h}",
        "headers: {request: {add: {host: b}}}",
        "retries: {attempts: 2, retryOn: '503, 5xx', retryRemoteLocalities: true}",
        "match: [{sourceNamespace: x, sourceLabels: {a: b}, port: 80}]",
    ] {
        assert_eq!(said(&rule(inner)), [], "{inner}");
    }
    let claims = "match: [{headers: {'@request.auth.claims.a': {exact: b}}}], redirect: {uri: /a}";
    assert_eq!(said(&at_gateway(claims)), []);
    assert_eq!(said(&at_gateway("match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}")), []);
}

#[test]
fn what_istio_refuses_is_refused() {
    for (inner, want) in [
        ("corsPolicy: {allowOrigins: [{}]}", "http[0].corsPolicy.allowOrigins[0]: is empty"),
        ("corsPolicy: {allowOrigins: [{regex: 'a('}]}", "http[0].corsPolicy.allowOrigins[0].regex: "),
        ("corsPolicy: {allowMethods: [get]}", "http[0].corsPolicy.allowMethods[0]: \"get\" is unknown"),
        ("corsPolicy: {exposeHeaders: ['a b']}", "http[0].corsPolicy.exposeHeaders[0]: "),
        ("corsPolicy: {maxAge: 1.5s}", "http[0].corsPolicy.maxAge: 1.500s is finer than a second"),
        ("delegate: {name: b}", "http[0]: does too much"),
        ("redirect: {uri: /a}", "http[0]: does too much"),
        ("directResponse: {status: 200}", "http[0]: does too much"),
        ("match: [{gateways: [a/b/c]}]", "http[0].match[0].gateways[0]: \"a/b/c\" is not a gateway"),
        ("match: [{sourceNamespace: A_b}]", "http[0].match[0].sourceNamespace: "),
        ("match: [{uri: {regex: ''}}]", "http[0].match[0].uri.regex: is empty"),
        ("match: [{headers: {'@request.auth.claims.a': {exact: b}}}]", "http[0].match[0].headers.@request"),
        (
            "headers: {request: {set: {host: b}, add: {':authority': c}}}",
            "http[0].headers.request: sets the host twice",
        ),
        ("rewrite: {authority: b}, headers: {request: {add: {host: c}}}", "http[0].rewrite.authority: "),
        ("rewrite: {uriRegexRewrite: {match: a}}", "http[0].rewrite.uriRegexRewrite.rewrite: is missing"),
        ("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}", "http[0].rewrite: has both"),
        ("retries: {retryRemoteLocalities: true}", "http[0].retries: attempts is 0"),
        ("retries: {attempts: 1, retryOn: '599'}", "http[0].retries.retryOn: \"599\" is no condition"),
    ] {
        check(&rule(inner), Severity::Error, want);
    }
    for (inner, want) in [
        ("redirect: {}", "http[0].redirect: is empty"),
        ("redirect: {uri: /a, prefixRewrite: /b}", "http[0].redirect: has both"),
        ("redirect: {prefixRewrite: /b}, match: [{uri: {exact: /a}}]", "http[0].redirect.prefixRewrite: "),
        ("redirect: {uri: /a, redirectCode: 304}", "http[0].redirect.redirectCode: 304 is no redirect"),
        ("redirect: {uri: /a}, rewrite: {uri: /b}", "http[0].rewrite: has no effect beside redirect"),
        (
            "redirect: {uri: /a}, fault: {abort: {httpStatus: 500}}",
            "http[0].fault: has no effect beside redirect",
        ),
        (
            "directResponse: {status: 200}, rewrite: {uri: /b}",
            "http[0].rewrite: has no effect beside directResponse",
        ),
        ("directResponse: {status: 199}", "http[0].directResponse.status: 199 is not a status"),
    ] {
        check(&at_gateway(inner), Severity::Error, want);
    }
    for (spec, want) in [
        ("{http: [{delegate: {name: b}}]}", "http[0].delegate: is not possible"),
        ("{hosts: [a], http: [{delegate: {}}]}", "http[0].delegate.name: is missing"),
        ("{hosts: [a], tcp: [{}]}", "tcp[0].route: is missing"),
        (
            "{hosts: [a], tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: a}}]}]}",
            "tcp[0].match[0].destinationSubnets[0]: ",
        ),
        (
            "{hosts: [a.com], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: a}}]}]}",
            "tls[0].match[0].sniHosts[0]: \"b.com\" is none of hosts",
        ),
    ] {
        check(spec, Severity::Error, want);
    }
}

#[test]
fn bodies_have_a_size() {
    let body = |size: usize| {
        at_gateway(&format!("directResponse: {{status: 200, body: {{string: '{}'}}}}", "a".repeat(size)))
    };
    assert_eq!(said(&body(100 * 1024)), []);
    check(&body(100 * 1024 + 1), Severity::Warning, "http[0].directResponse.body: has 102401 bytes");
    check(&body(1024 * 1024 + 1), Severity::Error, "http[0].directResponse.body: has 1048577 bytes, more");
}

#[test]
fn rules_that_are_never_reached_are_told() {
    let rules = |rules: &str| format!("{{hosts: [a.com], gateways: [gw], http: [{rules}]}}");
    let (end, any) = ("redirect: {uri: /x}", "{redirect: {uri: /x}}");
    for (list, want) in [
        (format!("{any}, {any}"), "http[1]: is never reached: http[0] has no match"),
        (
            format!(
                "{{match: [{{uri: {{exact: /a}}}}], {end}}}, {{match: [{{name: b, uri: {{exact: /a}}}}], {end}}}"
            ),
            "http[1].match[0]: is never reached: http[0] has it too",
        ),
        (
            format!(
                "{{match: [{{uri: {{prefix: /a}}}}], {end}}}, {{match: [{{uri: {{prefix: /a/b}}}}], {end}}}"
            ),
            "http[1].match[0].uri.prefix: is never reached: http[0] matches the prefix \"/a\" before",
        ),
    ] {
        check(&rules(&list), Severity::Warning, want);
    }
    let apart = format!(
        "{{match: [{{uri: {{prefix: /a}}, port: 80}}], {end}}}, {{match: [{{uri: {{prefix: /a/b}}}}], {end}}}"
    );
    assert_eq!(said(&rules(&apart)), []);
}

#[test]
fn old_forms_are_told() {
    for (spec, want) in [
        (rule("mirror: {host: b}, mirrorPercent: 50"), "http[0].mirrorPercent: is the old form"),
        (rule("corsPolicy: {allowOrigin: [a]}"), "http[0].corsPolicy.allowOrigin: is the old form"),
        (
            "{hosts: [a.com], gateways: [gw.ns.svc.cluster.local], http: [{redirect: {uri: /a}}]}".into(),
            "gateways[0]: \"gw.ns.svc.cluster.local\" is the old form: write ns/gw",
        ),
    ] {
        check(&spec, Severity::Warning, want);
    }
}
