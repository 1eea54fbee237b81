use crate::{Severity, yaml};

/// What is said of an object of a kind with this `spec`.
fn said(kind: &str, spec: &str) -> Vec<(Severity, String)> {
    let group = if kind == "Service" { "v1" } else { "networking.istio.io/v1" };
    let text = format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(kind: &str, spec: &str, severity: Severity, want: &str) {
    let all = said(kind, spec);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{spec}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{spec}: {all:#?}");
}

fn route(inner: &str) -> String {
    format!("{{hosts: [a], http: [{{{inner}, route: [{{destination: {{host: a}}}}]}}]}}")
}

#[test]
fn services_that_envoy_could_not_take_are_refused() {
    for (spec, want) in [
        ("{ports: [{port: 0}]}", "spec.ports[0].port: is missing or 0"),
        ("{ports: [{name: http}]}", "spec.ports[0].port: is missing or 0"),
        (
            "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
            "spec.ports[1].port: 80 stands twice for TCP",
        ),
        ("{ports: [{name: a, port: 80}, {name: a, port: 81}]}", "there are two ports \"a\""),
        ("{ports: [{name: a, port: 80}, {port: 81}]}", "spec.ports[1].name: is missing"),
        ("{ports: [{port: 80, protocol: tcp}]}", "spec.ports[0].protocol: \"tcp\" is unknown"),
        ("{ports: [{port: 80, targetPort: 0}]}", "spec.ports[0].targetPort: 0 is not a port"),
        (
            "{clusterIP: 10.0.0.999, ports: [{port: 80}]}",
            "spec.clusterIP: \"10.0.0.999\" is not an IP address",
        ),
        ("{clusterIPs: [x], ports: [{port: 80}]}", "spec.clusterIPs[0]: \"x\" is not an IP address"),
        ("{type: Clusterip, ports: [{port: 80}]}", "spec.type: \"Clusterip\" is unknown"),
        ("{}", "spec.ports: is missing"),
    ] {
        check("Service", spec, Severity::Error, want);
    }
    for spec in [
        "{ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}",
        "{clusterIP: None}",
        "{type: ExternalName, externalName: example.com}",
    ] {
        assert!(said("Service", spec).is_empty(), "{spec}: {:?}", said("Service", spec));
    }
}

#[test]
fn addresses_are_addresses() {
    let slice = |address_type: &str, address: &str| {
        let text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a}}\naddressType: {address_type}\nendpoints:\n- addresses: ['{address}']\nports: [{{port: 80}}]\n"
        );
        yaml::read("mesh.yaml", &text).problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(slice("IPv4", "10.0.0.1").is_empty());
    let all = slice("IPv4", "foo");
    assert!(
        all[0].contains("mesh.yaml:6: EndpointSlice default/a: endpoints[0].addresses[0]: \"foo\""),
        "{all:?}"
    );
    assert!(slice("IPv4", "::1")[0].contains("is not an address of type IPv4"));
    assert!(slice("ipv4", "10.0.0.1")[0].contains("addressType: \"ipv4\" is unknown"));
}

#[test]
fn routes_that_envoy_could_not_take_are_refused() {
    for (inner, want) in [
        ("match: [{uri: {regex: '*'}}]", "match[0].uri.regex: \"*\" is not a regular expression"),
        ("match: [{method: {regex: '*'}}]", "match[0].method.regex"),
        ("match: [{headers: {x: {prefix: ''}}}]", "match[0].headers.x.prefix: is empty"),
        ("match: [{headers: {'a b': {}}}]", "\"a b\" is not the name of a header"),
        ("fault: {}", "fault: is empty"),
        ("fault: {abort: {httpStatus: 600}}", "fault.abort.httpStatus: 600 is not a status"),
        ("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}", "101 is not a percentage"),
        ("fault: {abort: {grpcStatus: NOPE}}", "fault.abort.grpcStatus: \"NOPE\" is unknown"),
        ("fault: {delay: {fixedDelay: 0s}}", "fault.delay.fixedDelay: 0s is too short"),
        ("headers: {request: {remove: [host]}}", "request.remove[0]: \"host\" cannot be removed"),
        ("headers: {request: {remove: [':path']}}", "\":path\" cannot be removed"),
        ("headers: {request: {set: {':path': x}}}", "\":path\" cannot be changed"),
        ("headers: {response: {set: {host: x}}}", "\"host\" cannot be changed"),
        ("headers: {request: {set: {a: '%BAD'}}}", "has a % that begins no %COMMAND%"),
        ("retries: {attempts: 1, retryOn: nosuch}", "retries.retryOn: \"nosuch\" is no condition"),
        ("mirror: {host: b}, mirrorPercentage: {value: 150}", "mirrorPercentage: 150 is not a percentage"),
    ] {
        check("VirtualService", &route(inner), Severity::Error, want);
    }
    for inner in [
        "match: [{headers: {x: {regex: '*'}}, withoutHeaders: {y: {regex: '*'}}, queryParams: {z: {regex: '*'}}}]",
        "match: [{headers: {':method': {exact: GET}}}]",
        "fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.1}}, delay: {fixedDelay: 1s}}",
        "headers: {request: {set: {host: b, x: '%REQ(a):3%100%%'}, remove: [x-a]}}",
        "retries: {attempts: 2, retryOn: '5xx,503,reset'}",
    ] {
        assert!(
            said("VirtualService", &route(inner)).is_empty(),
            "{inner}: {:?}",
            said("VirtualService", &route(inner))
        );
    }
    let subset = "{hosts: [a], http: [{route: [{destination: {host: a, subset: 'v|1'}}]}]}";
    check("VirtualService", subset, Severity::Error, "\"v|1\" is not the name of a subset");
    let hosts = "{hosts: ['*.b.c', a.b.c], http: [{route: [{destination: {host: a}}]}]}";
    check("VirtualService", hosts, Severity::Error, "have hosts in common");
}

#[test]
fn what_has_no_effect_yet_is_told() {
    for (inner, want) in [
        ("match: [{uri: {prefix: ''}}]", "it matches every path"),
        ("fault: {abort: {percentage: {value: 1}}}", "fault.abort: has no effect"),
        ("fault: {delay: {percentage: {value: 1}}}", "fault.delay: has no effect"),
    ] {
        check("VirtualService", &route(inner), Severity::Warning, want);
    }
}
