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

fn list_of_two() -> String {
    let item = |name: &str, timeout: &str| {
        format!(
            "- apiVersion: networking.istio.io/v1\n  kind: VirtualService\n  metadata: {{name: {name}}}\n  spec:\n    hosts: [a.b/c]\n    http:\n    - route: [{{destination: {{host: a}}}}]\n      timeout: {timeout}\n"
        )
    };
    format!("# a list\napiVersion: v1\nkind: List\nitems:\n{}{}", item("a", "5s"), item("b", "soon"))
}

#[test]
fn problems_in_lists_and_json_have_their_own_lines() {
    let all = problems(&list_of_two());
    let [host, timeout] = &all[..] else { panic!("{all:#?}") };
    assert!(host.starts_with("mesh.yaml:9: VirtualService default/a: spec.hosts[0]: "), "{host}");
    assert!(
        timeout.starts_with("mesh.yaml:20: VirtualService default/b: spec.http[0].timeout: "),
        "{timeout}"
    );
    let json = "{\n \"apiVersion\": \"v1\", \"kind\": \"Service\",\n \"metadata\": {\"name\": \"a\"},\n \"spec\": {\n  \"ports\": [\n   {\"port\": 0}]}}\n";
    let all = problems(json);
    assert!(all[0].starts_with("mesh.yaml:6: Service default/a: spec.ports[0].port: "), "{all:?}");
    let all = problems("apiVersion: v1\nkind: List\nitem: []\n");
    assert!(all.len() == 1 && all[0].contains("items: is missing"), "{all:?}");
}

#[test]
fn items_may_leave_their_kind_to_their_list() {
    let text = "apiVersion: v1\nkind: ServiceAccountList\nitems:\n- metadata: {name: a}\n";
    assert_eq!(read("mesh.yaml", text).objects[0].key.to_string(), "ServiceAccount default/a");
}

#[test]
fn keys_with_dots_are_found() {
    let text = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec:\n  address: 1.2.3.4\n  labels:\n    app: a\n    example.com/b: 'c d'\n";
    let all = problems(text);
    assert!(all.len() == 1 && all[0].starts_with("mesh.yaml:8: "), "{all:?}");
}

#[test]
fn null_is_absent() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: null, annotations: }\naddressType: IPv4\nendpoints: null\nports: null\n";
    let route = ROUTE.replace("    timeout: 5s", "    timeout: null\n    retries: ~");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: }, ports: [{port: 80, targetPort: null}]}\n";
    for text in [slice, &route, service] {
        let contents = read("mesh.yaml", text);
        assert!(contents.problems.is_empty() && contents.objects.len() == 1, "{:?}", contents.problems);
    }
    let contents = read("mesh.yaml", service);
    let Spec::Service(spec) = &contents.objects[0].spec else { panic!() };
    assert_eq!(spec.selector.get("app").map(String::as_str), Some(""));
}

#[test]
fn nothing_is_ignored_without_a_word() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtls: {mode: STRICT}}\n";
    for (from, to, want, counts) in [
        (
            "spec:",
            "spce:",
            "mesh.yaml:4: PeerAuthentication default/a: spce: no such field: did you mean spec?",
            false,
        ),
        ("PeerAuthentication", "PeerAuthentcation", "did you mean PeerAuthentication?", false),
        ("PeerAuthentication", "peerauthentication", "did you mean PeerAuthentication?", false),
        ("security.istio.io", "security.istio.oi", "did you mean security.istio.io/v1?", false),
        ("PeerAuthentication", "Frobnicator", "has no kind \"Frobnicator\"", false),
        ("PeerAuthentication", "AuthorizationPolicy", "spec.mtls: no such field; it has no effect", true),
        ("{name: a}", "{name: a, lables: {}}", "metadata.lables: no such field: did you mean labels?", false),
        ("{name: a}", "{name: A_b}", "metadata.name: \"A_b\" is not a name", false),
        ("{name: a}", "{name: a, namespace: x.y}", "metadata.namespace: \"x.y\" is not a namespace", false),
        ("{mode", "{mood", "spec.mtls.mood: no such field; it has no effect", true),
    ] {
        assert!(policy.contains(from), "{from}");
        let contents = read("mesh.yaml", &policy.replace(from, to));
        let [problem] = &contents.problems[..] else { panic!("{to}: {:#?}", contents.problems) };
        assert!(problem.to_string().contains(want), "{to}: {problem}");
        assert_eq!(problem.severity == Severity::Warning, counts, "{to}");
    }
    // What is somebody else's, or exists and does not matter here, is no mistake.
    let others = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n---\n\
        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: a, uid: x, managedFields: []}\n\
        spec: {ipFamilies: [IPv4], type: NodePort, ports: [{port: 80, nodePort: 30000}]}\nstatus: {loadBalancer: {}}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n";
    assert!(problems(others).is_empty(), "{:?}", problems(others));
}

#[test]
fn errors_have_the_value() {
    let all = problems(&ROUTE.replace("        subset: v2", "      weight: abc"));
    assert!(all[0].ends_with("spec.http[0].route[0].weight: \"abc\": expected a whole number"), "{all:?}");
}

#[test]
fn directives_marks_and_ends_are_no_documents() {
    let object = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";
    for text in [
        format!("%YAML 1.2\n---\n{object}"),
        format!("\u{feff}---\n{object}...\n"),
        format!("\u{feff}{object}...\n%YAML 1.2\n---\n# nothing\n"),
        object.replace('\n', "\r\n"),
    ] {
        let contents = read("mesh.yaml", &text);
        assert!(contents.problems.is_empty() && contents.objects.len() == 1, "{text:?}: {contents:?}");
    }
}

#[test]
fn what_a_file_may_hold_follows_from_its_length() {
    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for number in 0..8_000 {
        text += &format!(
            "- {{apiVersion: v1, kind: Pod, metadata: {{name: p{number}, labels: {{a: b, c: d, e: f}}}}}}\n"
        );
    }
    assert_eq!(read("mesh.yaml", &text).objects.len(), 8_000);
}
