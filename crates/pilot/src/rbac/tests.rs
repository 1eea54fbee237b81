use config::{Store, yaml};
use mesh::MeshConfig;
use proto::envoy::config::rbac::v3::principal::Authenticated;
use proto::envoy::r#type::matcher::v3::StringMatcher;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::*;
use crate::snapshot::authz::Index;

/// The rules of one policy of namespace `ns`.
pub(super) fn rules(spec: &str, mesh: &MeshConfig) -> Rules {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: ns}}\nspec: {spec}\n"
    );
    let mut store = Store::default();
    let contents = yaml::read("a.yaml", &text);
    assert!(!contents.objects.is_empty(), "{:?}", contents.problems);
    for object in contents.objects {
        store.apply(object.into());
    }
    let index = Index::build(&store, mesh);
    Rules::new(index.policies().next().unwrap())
}

fn show(matcher: &StringMatcher) -> String {
    let case = if matcher.ignore_case { "i" } else { "" };
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => format!("{case}={text}"),
        MatchPattern::Prefix(text) => format!("{case}^{text}"),
        MatchPattern::Suffix(text) => format!("{case}${text}"),
        MatchPattern::SafeRegex(regex) => format!("{case}~{}", regex.regex),
        other => panic!("{other:?}"),
    }
}

/// Names of peers in a policy.
fn peers(policy: &EnvoyPolicy) -> Vec<String> {
    fn walk(principal: &Principal, found: &mut Vec<String>) {
        match principal.identifier.as_ref().unwrap() {
            Identifier::AndIds(set) | Identifier::OrIds(set) => {
                set.ids.iter().for_each(|id| walk(id, found));
            }
            Identifier::NotId(id) => walk(id, found),
            Identifier::Authenticated(Authenticated { principal_name: Some(name) }) => {
                found.push(show(name));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    policy.principals.iter().for_each(|principal| walk(principal, &mut found));
    found
}

#[test]
fn what_users_write_is_escaped_in_regular_expressions() {
    let spec = "{rules: [{from: [{source: {principals: ['*/sa/a.b[0]'], namespaces: ['n.s', 'a*b+c'], \
                trustDomains: ['t.d', '*.d', 't*', '*']}}, {source: {serviceAccounts: ['x.y', 'n(s/a|b']}}]}]}";
    let rules = rules(spec, &MeshConfig::default());
    assert_eq!(
        peers(&rules.http[0].1),
        [
            r"~spiffe://.*/sa/a\.b\[0\]",
            "^spiffe://t.d/",
            r"~spiffe://[^/]*\.d/.*",
            "~spiffe://t[^/]*/.*",
            "^spiffe://",
            r"~.*/ns/n\.s/.*",
            r"~.*/ns/a.*b\+c/.*",
            r"~spiffe://.+/ns/ns/(.+/|)sa/x\.y(/.+)?",
            r"~spiffe://.+/ns/n\(s/(.+/|)sa/a\|b(/.+)?",
        ]
    );
}

#[test]
fn the_end_of_a_namespace_is_not_found_in_what_follows_it() {
    let spec =
        "{rules: [{from: [{source: {namespaces: ['*a', 'x*sa', sa, 's*', '*x*', '*-a', 'a*', '*']}}]}]}";
    let want = [
        "~spiffe://[^/]*/ns/[^/]*a/.*",
        "~spiffe://[^/]*/ns/x[^/]*sa/.*",
        "~spiffe://[^/]*/ns/sa/.*",
        "~spiffe://[^/]*/ns/s[^/]*/.*",
        "~spiffe://[^/]*/ns/[^/]*x[^/]*/.*",
        "~.*/ns/.*-a/.*",
        "~.*/ns/a.*/.*",
        "~.*/ns/.*/.*",
    ];
    assert_eq!(peers(&rules(spec, &MeshConfig::default()).http[0].1), want);
}

#[test]
fn principals_of_the_mesh_hold_for_all_its_trust_domains() {
    let mesh = MeshConfig::from_yaml("{trustDomain: new, trustDomainAliases: [old]}").unwrap();
    let spec = "{rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}], \
                when: [{key: source.principal, notValues: [old/ns/a/sa/c]}, \
                {key: source.trustDomain, values: [old]}]}]}";
    let rules = rules(spec, &mesh);
    let want = [
        "=spiffe://new/ns/a/sa/b",
        "=spiffe://old/ns/a/sa/b",
        "=spiffe://new/ns/a/sa/c",
        "=spiffe://old/ns/a/sa/c",
        "^spiffe://new/",
        "^spiffe://old/",
    ];
    assert_eq!(peers(&rules.http[0].1), want);
}

#[test]
fn connections_have_nothing_of_http() {
    let rules_of = |action: &str, rule: &str| {
        let spec =
            format!("{{action: {action}, rules: [{rule}, {{to: [{{operation: {{ports: ['80']}}}}]}}]}}");
        rules(&spec, &MeshConfig::default())
    };
    let path = "{to: [{operation: {paths: [/a], ports: ['9000']}}]}";
    // Less is allowed, more is denied.
    let allow = rules_of("ALLOW", path);
    assert_eq!((allow.http.len(), allow.tcp.len()), (2, 1));
    assert_eq!(allow.tcp[0].0, 1, "rules keep their numbers");
    let deny = rules_of("DENY", path);
    assert_eq!((deny.http.len(), deny.tcp.len()), (2, 2));
    assert_eq!(deny.tcp[0].1.permissions, [permission::all_of(vec![permission::one_of(vec![port(9000)])])]);
    for rule in [
        "{when: [{key: 'request.headers[x]', values: [a]}]}",
        "{when: [{key: 'request.auth.claims[a]', values: [a]}]}",
        "{when: [{key: request.auth.audiences, values: [a]}]}",
        "{when: [{key: request.auth.presenter, values: [a]}]}",
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{from: [{source: {notRequestPrincipals: ['*']}}]}",
        "{to: [{operation: {hosts: [a]}}]}",
        "{to: [{operation: {notMethods: [GET]}}]}",
    ] {
        assert_eq!(rules_of("ALLOW", rule).tcp.len(), 1, "{rule}");
        let deny = rules_of("DENY", rule);
        assert_eq!(deny.tcp[0].1.permissions, [permission::all_of(vec![permission::any()])], "{rule}");
        assert_eq!(deny.tcp[0].1.principals, [principal::all_of(vec![principal::any()])], "{rule}");
    }
}

fn port(port: u32) -> Permission {
    Permission { rule: Some(PermissionRule::DestinationPort(port)) }
}

#[test]
fn an_empty_policy_matches_nothing_and_an_empty_rule_everything() {
    let none = rules("{}", &MeshConfig::default());
    assert_eq!(none.http, [(0, never())]);
    let all = rules("{rules: [{}]}", &MeshConfig::default());
    assert_eq!(all.http[0].1.permissions, [permission::all_of(vec![permission::any()])]);
    assert_eq!(all.tcp, all.http);
}

#[test]
fn what_envoy_would_refuse_never_reaches_it() {
    use proto::istio::security::v1beta1::{Condition, Rule};
    let context = rule::Context { namespace: "n", trust_domains: &[], is_tcp: false, is_strict: true };
    let when = |key: &str, value: &str| Rule {
        when: vec![Condition { key: key.into(), values: vec![value.into()], not_values: Vec::new() }],
        ..Rule::default()
    };
    for (key, value) in [
        ("request.auth.claims[a][]", "x"),
        ("request.auth.claims", "x"),
        ("request.headers[]", "x"),
        ("request.headers[a b]", "x"),
        ("experimental.envoy.filters.a", "x"),
        ("experimental.a[b]", "x"),
        ("source.ip", "300.1.1.1"),
        ("destination.port", "70000"),
        ("destination.port", "-1"),
        ("no.such.key", "x"),
    ] {
        assert!(rule::translate(&when(key, value), context).is_err(), "{key}");
    }
    use proto::istio::security::v1beta1::{Operation, rule::To};
    // Envoy ends with a crash at such templates.
    for path in ["{*}", "//{*}", "/{*}//a", "/{**}/{**}"] {
        let operation = Operation { paths: vec![path.into()], ..Operation::default() };
        let rule = Rule { to: vec![To { operation: Some(operation) }], ..Rule::default() };
        assert!(rule::translate(&rule, context).is_err(), "{path}");
    }
}
