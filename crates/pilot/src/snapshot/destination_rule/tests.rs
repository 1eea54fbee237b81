use std::sync::Arc;

use config::{Store, yaml};
use mesh::MeshConfig;

use super::*;

fn index(rules: &[(&str, &str, &str)]) -> Index {
    let mut store = Store::default();
    for (namespace, name, spec) in rules {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
        let contents = yaml::read("mesh.yaml", &text);
        assert!(!contents.has_errors(), "{:?}", contents.problems);
        for object in contents.objects {
            store.apply(Arc::new(object));
        }
    }
    Index::build(&store, &MeshConfig::default(), "cluster.local")
}

fn host(text: &str) -> Hostname {
    Hostname::new(text)
}

fn found<'a>(index: &'a Index, client: &str, text: &str, service: &str) -> Option<&'a str> {
    index.find(client, &host(text), service).map(|rule| rule.origin.1.as_str())
}

const POLICY: &str = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";

#[test]
fn the_clients_namespace_is_asked_before_the_services_and_the_root() {
    let spec = format!("{{host: a.svc.svc.cluster.local, {POLICY}}}");
    let index = index(&[
        ("client", "client", &spec),
        ("svc", "service", &spec),
        ("istio-system", "root", &spec),
        ("third", "third", &spec),
    ]);
    let name = "a.svc.svc.cluster.local";
    assert_eq!(found(&index, "client", name, "svc"), Some("client"));
    assert_eq!(found(&index, "other", name, "svc"), Some("service"));
    assert_eq!(found(&index, "other", name, "elsewhere"), Some("root"));
    assert_eq!(found(&index, "istio-system", name, "svc"), Some("service"));
}

#[test]
fn private_rules_stay_in_their_namespace() {
    let index = index(&[
        ("svc", "private", &format!("{{host: a, exportTo: [.], {POLICY}}}")),
        ("svc", "some", &format!("{{host: b, exportTo: [friend], {POLICY}}}")),
        ("istio-system", "root", &format!("{{host: '*', exportTo: [.], {POLICY}}}")),
    ]);
    let (a, b) = ("a.svc.svc.cluster.local", "b.svc.svc.cluster.local");
    assert_eq!(found(&index, "svc", a, "svc"), Some("private"));
    assert_eq!(found(&index, "client", a, "svc"), None);
    assert_eq!(found(&index, "friend", b, "svc"), Some("some"));
    assert_eq!(found(&index, "client", b, "svc"), None);
    assert_eq!(found(&index, "istio-system", b, "svc"), Some("root"));
}

#[test]
fn the_most_specific_host_counts() {
    let rule = |host: &str| format!("{{host: '{host}', {POLICY}}}");
    let index = index(&[
        ("ns", "all", &rule("*")),
        ("ns", "com", &rule("*.com")),
        ("ns", "b-com", &rule("*.b.com")),
        ("ns", "exact", &rule("a.b.com")),
        ("ns", "part", &rule("*x.com")),
    ]);
    for (name, want) in [
        ("a.b.com", "exact"),
        ("c.b.com", "b-com"),
        ("*.b.com", "b-com"),
        ("*.c.b.com", "b-com"),
        ("b.com", "com"),
        ("yx.com", "part"),
        ("org", "all"),
        ("é.com", "com"),
    ] {
        assert_eq!(found(&index, "ns", name, "ns"), Some(want), "{name}");
    }
}

#[test]
fn rules_for_one_host_are_merged() {
    let index = index(&[
        ("ns", "a", "{host: a, subsets: [{name: v1, labels: {v: '1'}}]}"),
        (
            "ns",
            "b",
            &format!("{{host: a.ns.svc.cluster.local, {POLICY}, subsets: [{{name: v1}}, {{name: v2}}]}}"),
        ),
    ]);
    let rule = index.find("ns", &host("a.ns.svc.cluster.local"), "ns").unwrap();
    assert_eq!(rule.origin.1, "a");
    assert!(rule.policy.is_some());
    let names: Vec<&str> = rule.subsets.iter().map(|subset| subset.name.as_str()).collect();
    assert_eq!(names, ["v1", "v2"]);
    assert_eq!(rule.subset("v1").unwrap().labels["v"], "1");
}

#[test]
fn a_rule_that_selects_the_client_goes_first() {
    let selecting = format!("{{host: a, workloadSelector: {{matchLabels: {{app: x}}}}, {POLICY}}}");
    let rules = [("ns", "selects", selecting.as_str()), ("ns", "all", "{host: a, exportTo: [.]}")];
    let index = index(&rules);
    let name = host("a.ns.svc.cluster.local");
    let select = |client: &str, app: &str| {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        index.select(client, &labels, &name, "ns").map(|rule| rule.origin.1.clone())
    };
    assert_eq!(select("ns", "x").as_deref(), Some("selects"));
    assert_eq!(select("ns", "y").as_deref(), Some("all"));
    assert_eq!(select("other", "x"), None);
}

#[test]
fn a_rule_for_other_workloads_hides_wildcards() {
    let selecting = format!("{{host: a, workloadSelector: {{matchLabels: {{app: x}}}}, {POLICY}}}");
    let index = index(&[("ns", "selects", &selecting), ("ns", "all", &format!("{{host: '*', {POLICY}}}"))]);
    assert_eq!(found(&index, "ns", "a.ns.svc.cluster.local", "ns"), None);
}
