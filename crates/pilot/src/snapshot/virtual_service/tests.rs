use std::sync::Arc;

use config::{Store, yaml};

use super::{Entry, Index};
use crate::snapshot::Snapshot;

fn store(objects: &str) -> Store {
    let contents = yaml::read("mesh.yaml", objects);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    contents.objects.into_iter().for_each(|object| {
        store.apply(Arc::new(object));
    });
    store
}

fn index(objects: &str) -> Index {
    Index::build(&store(objects), &mesh::MeshConfig::default(), "cluster.local")
}

fn names<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<&'a str> {
    entries.map(|entry| entry.name.as_str()).collect()
}

const BOUND: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: public, namespace: a, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {hosts: [x.com], gateways: [gw, mesh], http: [{route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: exported, namespace: a, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {hosts: ['*.com'], exportTo: [b, .], http: [{route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own, namespace: b, creationTimestamp: '2024-01-03T00:00:00Z'}
spec: {hosts: [x.com], exportTo: [.], http: [{route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: b, creationTimestamp: '2024-01-04T00:00:00Z'}
spec: {hosts: [x.com], gateways: [a/gw], http: [{route: [{destination: {host: x}}]}]}
";

#[test]
fn what_is_meant_for_a_namespace_comes_first() {
    let index = index(BOUND);
    assert_eq!(names(index.visible("b")), ["own", "exported", "public"]);
    assert_eq!(names(index.visible("a")), ["exported", "public"]);
    assert_eq!(names(index.visible("c")), ["public"]);
    assert_eq!(names(index.for_gateway("a", "a/gw")), ["public", "edge"]);
    assert_eq!(names(index.for_gateway("a", "b/gw")), [""; 0]);
}

/// The rules of `root` with a delegate, one line each.
fn delegated(root: &str, child: &str) -> Vec<String> {
    let objects = format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: root, namespace: a}}
spec: {{hosts: [x.com], gateways: [gw], http: [{root}, {{name: last, route: [{{destination: {{host: x}}}}]}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: child, namespace: b}}
spec: {{http: {child}}}
"
    );
    let index = index(&objects);
    let entry = index.for_gateway("a", "a/gw").next().unwrap();
    let rules = entry.spec.http.iter().map(|rule| {
        let uris: Vec<_> =
            rule.r#match.iter().map(|one| one.uri.clone().unwrap_or_default().match_type).collect();
        let host = rule.route.first().and_then(|target| target.destination.as_ref());
        format!("{} {uris:?} {}", rule.name, host.map_or("", |host| host.host.as_str()))
    });
    rules.collect()
}

#[test]
fn rules_of_a_delegate_stand_in_for_the_root_s() {
    let root = "{name: r, match: [{uri: {prefix: /a}}], timeout: 3s, delegate: {name: child, namespace: b}}";
    let child = "[{name: one, match: [{uri: {exact: /a/b}}], route: [{destination: {host: w}}]},
                  {name: other, match: [{uri: {prefix: /b}}], route: [{destination: {host: w}}]},
                  {route: [{destination: {host: z.c}}]}]";
    let rules = delegated(root, child);
    let want = [
        "r-one [Some(Exact(\"/a/b\"))] w.b.svc.cluster.local",
        "r [Some(Prefix(\"/a\"))] z.c",
        "last [] x.a.svc.cluster.local",
    ];
    assert_eq!(rules, want);
}

#[test]
fn a_rule_without_its_delegate_is_dropped() {
    for lost in ["{name: child}", "{name: other, namespace: b}", "{name: root}"] {
        let rules = delegated(&format!("{{delegate: {lost}}}"), "[{route: [{destination: {host: w}}]}]");
        assert_eq!(rules, ["last [] x.a.svc.cluster.local"]);
    }
}

#[test]
fn names_that_lead_nowhere_are_told() {
    let objects = "
apiVersion: v1
kind: Service
metadata: {name: x, namespace: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: a}
spec:
  hosts: [x]
  http:
  - {match: [{uri: {prefix: /a}}], delegate: {name: lost}}
  - {match: [{uri: {prefix: /b}}], delegate: {name: child, namespace: b}}
  - {route: [{destination: {host: x, subset: v1}}], mirror: {host: gone}}
  tcp: [{route: [{destination: {host: gone}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: child, namespace: b}
spec: {http: [{match: [{uri: {prefix: /c}}], directResponse: {status: 200}}]}
";
    let snapshot = Snapshot::build(&store(objects), &crate::Settings::new(Arc::default(), "Kubernetes"));
    let fields: Vec<&str> = snapshot.problems.iter().map(|problem| problem.field.as_str()).collect();
    let want = [
        "spec.http[0].delegate",
        "spec.http[1].delegate",
        "spec.http[2].route[0].destination",
        "spec.http[2].mirror",
        "spec.tcp[0].route[0].destination",
    ];
    assert_eq!(fields, want);
}
