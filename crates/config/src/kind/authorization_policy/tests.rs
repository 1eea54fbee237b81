use crate::{Severity, yaml};

/// Field and severity of each finding, with the message.
fn found(kind: &str, spec: &str) -> Vec<(Severity, String, String)> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: ns}}\nspec: {spec}\n"
    );
    let problems = yaml::read("a.yaml", &text).problems.into_iter();
    problems.map(|problem| (problem.severity, problem.field, problem.message)).collect()
}

/// The fields with errors.
fn errors(spec: &str) -> Vec<String> {
    let found = found("AuthorizationPolicy", spec).into_iter();
    let errors = found.filter(|(severity, ..)| *severity == Severity::Error);
    errors.map(|(_, field, _)| field.trim_start_matches("spec.").to_owned()).collect()
}

fn rule(rule: &str) -> Vec<String> {
    errors(&format!("{{rules: [{rule}]}}")).iter().map(|at| at.replace("rules[0].", "")).collect()
}

#[test]
fn a_policy_with_everything_is_accepted() {
    let spec = "{rules: [{from: [{source: {principals: ['a*', '*'], requestPrincipals: ['https://i/*'], \
        namespaces: [a, 'b*'], ipBlocks: [1.2.3.4, '::/0'], remoteIpBlocks: [10.0.0.0/8], trustDomains: ['*.td']}}, \
        {source: {serviceAccounts: [a, n/a]}}], \
        to: [{operation: {hosts: ['*.a'], methods: [GET], paths: ['/a/*', '/b/{*}/{**}'], ports: ['80'], notPaths: ['*/x']}}], \
        when: [{key: 'request.headers[x-a]', values: [b]}, {key: 'request.auth.claims[a][b]', notValues: [c]}, \
        {key: source.ip, values: [1.2.3.4]}, {key: 'request.headers[:method]', values: [GET]}, {key: destination.port, values: ['80']}, {key: connection.sni, values: [a]}, \
        {key: 'experimental.envoy.filters.a.b[c]', values: ['[d]']}]}]}";
    assert_eq!(found("AuthorizationPolicy", spec), []);
    assert_eq!(found("AuthorizationPolicy", "{}"), []);
    assert_eq!(
        found(
            "AuthorizationPolicy",
            "{action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {paths: [/a]}}]}]}"
        ),
        []
    );
}

#[test]
fn actions_need_what_they_work_with() {
    for (spec, want) in [
        ("{action: CUSTOM, rules: [{}]}", &["provider.name"][..]),
        ("{action: CUSTOM, provider: {name: p}}", &["rules"]),
        ("{action: DENY}", &["rules"]),
        ("{action: DENY, provider: {name: p}, rules: [{}]}", &["provider"]),
        (
            "{action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {namespaces: [a], principals: [b]}}], \
             when: [{key: source.principal, values: [a]}, {key: 'request.auth.claims[a]', values: [a]}]}]}",
            &[
                "rules[0].from[0].source.namespaces",
                "rules[0].from[0].source.principals",
                "rules[0].when[0].key",
                "rules[0].when[1].key",
            ],
        ),
        ("{selector: {matchLabels: {a: '*'}}}", &["selector.matchLabels.a"]),
    ] {
        assert_eq!(errors(spec), want, "{spec}");
    }
}

#[test]
fn values_are_checked_by_what_they_are() {
    let from = |fields: &str| rule(&format!("{{from: [{{source: {{{fields}}}}}]}}"));
    for (fields, want) in [
        ("", "from[0].source"),
        ("principals: ['']", "from[0].source.principals[0]"),
        ("ipBlocks: [1.2.3]", "from[0].source.ipBlocks[0]"),
        ("ipBlocks: [1.2.3.4/33]", "from[0].source.ipBlocks[0]"),
        ("notRemoteIpBlocks: ['fe80::1%eth0']", "from[0].source.notRemoteIpBlocks[0]"),
        ("serviceAccounts: [a/b/c]", "from[0].source.serviceAccounts[0]"),
        ("serviceAccounts: ['a*']", "from[0].source.serviceAccounts[0]"),
        ("serviceAccounts: [a], namespaces: [b]", "from[0].source.serviceAccounts"),
        ("trustDomains: [a/b]", "from[0].source.trustDomains[0]"),
        ("trustDomains: ['a*b']", "from[0].source.trustDomains[0]"),
    ] {
        assert_eq!(from(fields), [want], "{fields}");
    }
    assert_eq!(from(&format!("namespaces: [{}]", "a".repeat(1025))), ["from[0].source.namespaces[0]"]);
    assert_eq!(from(&format!("serviceAccounts: [{}]", "a,".repeat(17))), ["from[0].source.serviceAccounts"]);
    let to = |fields: &str| rule(&format!("{{to: [{{operation: {{{fields}}}}}]}}"));
    for (fields, want) in [
        ("", "to[0].operation"),
        ("ports: ['70000']", "to[0].operation.ports[0]"),
        ("ports: ['+80']", "to[0].operation.ports[0]"),
        ("paths: ['/a{*}']", "to[0].operation.paths[0]"),
        ("paths: ['{*}']", "to[0].operation.paths[0]"),
        ("notPaths: ['/{**}/{*}']", "to[0].operation.notPaths[0]"),
        ("hosts: ['']", "to[0].operation.hosts[0]"),
    ] {
        assert_eq!(to(fields), [want], "{fields}");
    }
}

#[test]
fn conditions_name_an_attribute_and_values() {
    let when = |fields: &str| rule(&format!("{{when: [{{{fields}}}]}}"));
    for (fields, want) in [
        ("values: [a]", "when[0].key"),
        ("key: source.ip", "when[0]"),
        ("key: source.ip, values: [a]", "when[0].values[0]"),
        ("key: destination.port, notValues: [a]", "when[0].notValues[0]"),
        ("key: sourceip, values: [a]", "when[0].key"),
        ("key: 'request.headers[a b]', values: [a]", "when[0].key"),
        ("key: request.headers, values: [a]", "when[0].key"),
        ("key: 'request.auth.claims[a][]', values: [a]", "when[0].key"),
        ("key: experimental.envoy.filters.a, values: [a]", "when[0].key"),
        ("key: 'destination.labels[a]', values: [a]", "when[0].key"),
    ] {
        assert_eq!(when(fields), [want], "{fields}");
    }
    let messages = found("AuthorizationPolicy", "{rules: [{when: [{key: source.ipp, values: [a]}]}]}");
    assert!(messages[0].2.contains("did you mean source.ip?"), "{messages:?}");
}

#[test]
fn what_hardly_is_meant_is_told() {
    let warned = |spec: &str| {
        let found = found("AuthorizationPolicy", spec);
        assert!(found.iter().all(|(severity, ..)| *severity == Severity::Warning), "{spec}: {found:?}");
        found.len()
    };
    assert_eq!(warned("{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}"), 1);
    assert_eq!(warned("{action: DENY, rules: [{from: [{source: {requestPrincipals: [a]}}]}]}"), 1);
    assert_eq!(warned("{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['80']}}]}]}"), 0);
    assert_eq!(warned("{action: DENY, rules: [{}, {from: [{source: {namespaces: [a]}}]}]}"), 0);
    assert_eq!(warned("{rules: [{to: [{operation: {paths: [/a/*/b]}}]}]}"), 1);
    assert_eq!(warned("{rules: [{to: [{operation: {hosts: ['a*b']}}]}]}"), 1);
    assert_eq!(warned("{selector: {}}"), 1);
}
