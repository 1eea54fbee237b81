use super::*;
use crate::Spec;

fn problems(text: &str) -> Vec<String> {
    read("mesh.yaml", text).problems.iter().map(ToString::to_string).collect()
}

const ROUTE: &str = "\
# a comment
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews-route
spec:
  hosts:
  - reviews
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    route:
    - destination:
        host: reviews
        subset: v2
    timeout: 5s
  - route:
    - destination:
        host: reviews
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ignored}
";

#[test]
fn reads_objects_and_leaves_others_alone() {
    let contents = read("mesh.yaml", ROUTE);
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    let [object] = &contents.objects[..] else { panic!() };
    assert_eq!(object.key.to_string(), "VirtualService default/reviews-route");
    assert_eq!(object.position.to_string(), "mesh.yaml:3");
    let Spec::VirtualService(spec) = &object.spec else { panic!() };
    assert_eq!(spec.http.len(), 2);
    assert_eq!(spec.http[0].timeout.unwrap().seconds, 5);
}

#[test]
fn names_line_and_field_of_what_is_wrong() {
    for (from, to, want) in [
        (
            "timeout: 5s",
            "timeout: soon",
            "mesh.yaml:19: VirtualService default/reviews-route: spec.http[0].timeout: \"soon\" is not a duration",
        ),
        (
            "timeout: 5s",
            "tiemout: 5s",
            "mesh.yaml:19: VirtualService default/reviews-route: spec.http[0].tiemout: no such field",
        ),
        (
            "  - reviews\n",
            "  - re views\n",
            "mesh.yaml:9: VirtualService default/reviews-route: spec.hosts[0]: \"re views\" is not a host name",
        ),
        (
            "networking.istio.io/v1",
            "networking.istio.io/v9",
            "mesh.yaml:3: apiVersion: \"networking.istio.io/v9\" is no version of VirtualService",
        ),
        (
            "subset: v2",
            "subset: [v2]",
            "mesh.yaml:18: VirtualService default/reviews-route: spec.http[0].route[0].destination.subset: invalid type",
        ),
        ("  name: reviews-route", "  labels: {}", "metadata.name: is missing"),
        ("kind: VirtualService", "Kind: VirtualService", "kind: is missing"),
    ] {
        assert!(ROUTE.contains(from), "{from}");
        let all = problems(&ROUTE.replace(from, to));
        assert!(all.len() == 1 && all[0].contains(want), "{to}: {all:#?}");
    }
}

#[test]
fn says_where_the_yaml_breaks() {
    let all = problems("a: 1\n---\nb: [1,\n  c: }\n");
    assert!(all.iter().any(|problem| problem.starts_with("mesh.yaml:3: not YAML: ")), "{all:?}");
    let all = problems("apiVersion: v1\nkind:\n\t- Service\n");
    assert!(all[0].starts_with("mesh.yaml:"), "{all:?}");
}

#[test]
fn one_bad_document_does_not_hide_the_others() {
    let text =
        format!("{ROUTE}---\napiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: 7}}\n");
    let contents = read("mesh.yaml", &text);
    assert_eq!(contents.objects.len(), 1);
    assert!(contents.has_errors());
    let problem = contents.problems[0].to_string();
    assert!(problem.contains("Service default/a: spec.ports: "), "{problem}");
}

#[test]
fn survives_hostile_yaml() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let inner = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [inner.as_str(); 10].join(","));
    }
    assert!(!problems(&bomb).is_empty());
    let deep = "[".repeat(100_000);
    assert!(!problems(&deep).is_empty());
}
