use crate::{Severity, yaml};

fn said(kind: &str, spec: &str) -> Vec<(Severity, String)> {
    let text =
        format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(kind: &str, spec: &str, severity: Severity, want: &str) {
    let all = said(kind, spec);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{spec}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{spec}: {all:#?}");
}

const HTTP: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";
const TCP: &str = "ports: [{number: 80, name: tcp, protocol: TCP}]";

#[test]
fn entries_that_say_something_are_taken() {
    for spec in [
        format!("{{hosts: [a.example.com], {HTTP}, resolution: DNS}}"),
        format!("{{hosts: ['*.example.com'], {HTTP}}}"),
        format!(
            "{{hosts: [a.example.com], addresses: [10.0.0.0/8], {TCP}, resolution: STATIC, endpoints: [{{address: 10.1.1.1}}]}}"
        ),
        format!(
            "{{hosts: [a.example.com], {TCP}, resolution: STATIC, endpoints: [{{address: 'unix:///run/s'}}]}}"
        ),
        format!(
            "{{hosts: [a.example.com], {HTTP}, resolution: DNS, endpoints: [{{address: b.example.com, ports: {{http: 8080}}}}]}}"
        ),
        format!("{{hosts: ['*.example.com'], {HTTP}, resolution: DYNAMIC_DNS}}"),
        format!(
            "{{hosts: [a, b], {HTTP}, resolution: STATIC, workloadSelector: {{labels: {{app: x}}}}, exportTo: ['~']}}"
        ),
    ] {
        assert!(said("ServiceEntry", &spec).is_empty(), "{spec}: {:?}", said("ServiceEntry", &spec));
    }
}

#[test]
fn entries_that_cannot_be_meant_are_refused() {
    for (inner, want) in [
        ("hosts: []", "spec.hosts: is missing"),
        ("hosts: ['*']", "spec.hosts[0]: \"*\" would be every host"),
        ("hosts: [a b]", "spec.hosts[0]: \"a b\" is not a host name"),
        ("hosts: [a], addresses: [x]", "spec.addresses[0]: \"x\" is neither an IP address nor a range"),
        ("hosts: [a], addresses: [10.0.0.0/33]", "spec.addresses[0]: \"10.0.0.0/33\" is neither"),
        ("hosts: [a], addresses: [10.0.0.0/8], resolution: DNS", "which is for resolution NONE or STATIC"),
        ("hosts: ['*.a'], resolution: DNS", "spec.hosts[0]: \"*.a\" has no address"),
        ("hosts: [a], resolution: DYNAMIC_DNS", "spec.hosts[0]: \"a\" is one host"),
        (
            "hosts: [a], endpoints: [{address: 1.1.1.1}]",
            "spec.endpoints: have no effect with resolution NONE",
        ),
        (
            "hosts: [a], resolution: STATIC, endpoints: [{address: b.c}]",
            "spec.endpoints[0].address: \"b.c\" is not an IP address",
        ),
        (
            "hosts: [a], resolution: DNS, endpoints: [{address: 'unix:///a'}]",
            "spec.endpoints[0].address: \"unix:///a\" is a socket",
        ),
        (
            "hosts: [a], resolution: STATIC, endpoints: [{address: 1.1.1.1, ports: {x: 1}}]",
            "spec.endpoints[0].ports.x: the service has no port \"x\"",
        ),
        (
            "hosts: [a], resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.c}, {address: b.d}]",
            "spec.endpoints: resolution DNS_ROUND_ROBIN uses one endpoint",
        ),
        (
            "hosts: [a], resolution: STATIC, endpoints: [{address: 1.1.1.1}], workloadSelector: {labels: {a: b}}",
            "spec.workloadSelector: cannot stand beside endpoints",
        ),
        ("hosts: [a], exportTo: ['~', '.']", "spec.exportTo: \"~\" exports to nobody"),
        ("hosts: [a], exportTo: ['*', x]", "spec.exportTo[0]: \"*\" exports to all"),
    ] {
        check("ServiceEntry", &format!("{{{inner}, {HTTP}}}"), Severity::Error, want);
    }
    for (ports, want) in [
        ("[{number: 0, name: a}]", "spec.ports[0].number: 0 is not a port"),
        ("[{number: 80}]", "spec.ports[0].name: is missing"),
        ("[{number: 80, name: A_b}]", "spec.ports[0].name: \"A_b\" is not the name of a port"),
        ("[{number: 80, name: a, protocol: HTTPX}]", "spec.ports[0].protocol: \"HTTPX\" is unknown"),
        ("[{number: 80, name: a, targetPort: 70000}]", "spec.ports[0].targetPort: 70000 is not a port"),
        ("[{number: 80, name: a}, {number: 80, name: b}]", "spec.ports[1].number: 80 stands twice"),
        ("[{number: 80, name: a}, {number: 81, name: a}]", "spec.ports[1].name: there are two ports \"a\""),
    ] {
        let spec = format!("{{hosts: [a], resolution: STATIC, ports: {ports}}}");
        check("ServiceEntry", &spec, Severity::Error, want);
    }
    let spec = format!("{{hosts: [a, b], {TCP}, resolution: STATIC}}");
    check("ServiceEntry", &spec, Severity::Error, "spec.hosts: several hosts cannot be told apart");
}

#[test]
fn entries_that_hardly_do_what_was_meant_are_told() {
    for (inner, want) in [
        (
            "hosts: [a], ports: [{number: 80, name: tcp, protocol: TCP}]",
            "spec.ports[0].protocol: without addresses",
        ),
        ("hosts: ['*a.b'], ports: [{number: 80, name: a, protocol: HTTP}]", "is a part of a name"),
        (
            "hosts: [a], resolution: STATIC, workloadSelector: {}, ports: [{number: 80, name: a}]",
            "spec.workloadSelector.labels: is empty",
        ),
        (
            "hosts: [a], workloadSelector: {labels: {a: b}}, ports: [{number: 80, name: a, protocol: HTTP}]",
            "spec.workloadSelector: has no effect on traffic",
        ),
    ] {
        check("ServiceEntry", &format!("{{{inner}}}"), Severity::Warning, want);
    }
}

#[test]
fn workloads_follow_the_same_rules() {
    for (spec, want) in [
        ("{}", "spec.address: is missing"),
        ("{address: 'unix://a'}", "the path of a socket must be absolute"),
        ("{address: 'unix:///a', ports: {http: 80}}", "spec.ports: a Unix socket has no ports"),
        ("{address: '*.a'}", "is no single host"),
        ("{address: 1.1.1.1, ports: {http: 0}}", "spec.ports.http: 0 is not a port"),
        ("{address: 1.1.1.1, labels: {'a b': c}}", "is not a label key"),
    ] {
        check("WorkloadEntry", spec, Severity::Error, want);
    }
    check("WorkloadEntry", "{network: net-2}", Severity::Warning, "by the gateways of its network only");
    assert!(said("WorkloadEntry", "{address: a.example.com, network: net-2, weight: 3}").is_empty());
    for (spec, want) in [
        ("{}", "spec.template: is missing"),
        ("{template: {ports: {http: 0}}}", "spec.template.ports.http: 0 is not a port"),
        ("{template: {}, probe: {}}", "spec.probe: does not say how to check"),
        ("{template: {}, probe: {httpGet: {port: 0}}}", "spec.probe.httpGet.port: 0 is not a port"),
        (
            "{template: {}, probe: {httpGet: {port: 1, scheme: http}}}",
            "spec.probe.httpGet.scheme: \"http\" is unknown",
        ),
        ("{template: {}, probe: {exec: {}, periodSeconds: -1}}", "spec.probe.exec.command: is missing"),
    ] {
        check("WorkloadGroup", spec, Severity::Error, want);
    }
    let spec =
        "{metadata: {labels: {app: x}}, template: {serviceAccount: x}, probe: {tcpSocket: {port: 80}}}";
    assert!(said("WorkloadGroup", spec).is_empty(), "{:?}", said("WorkloadGroup", spec));
}
