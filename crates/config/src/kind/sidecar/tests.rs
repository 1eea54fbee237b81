use crate::{Severity, yaml};

/// What is said of a Sidecar with this `spec`.
fn said(spec: &str) -> Vec<(Severity, String)> {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: a, namespace: b}}\nspec: {spec}\n"
    );
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(spec: &str, severity: Severity, want: &str) {
    let all = said(spec);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{spec}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{spec}: {all:#?}");
}

#[test]
fn what_istio_refuses_is_refused() {
    for (spec, want) in [
        ("{}", "is empty"),
        (
            "{workloadSelector: {labels: {app: 'a*'}}, egress: [{hosts: ['./*']}]}",
            "selectors know no wildcards",
        ),
        ("{ingress: [{bind: 127.0.0.1}]}", "spec.ingress[0].port: is missing"),
        ("{ingress: [{port: {number: 0, protocol: HTTP}}]}", "0 is not a port"),
        ("{ingress: [{port: {number: 80, protocol: FOO}}]}", "\"FOO\" is unknown"),
        ("{ingress: [{port: {number: 80, protocol: HTTP, name: 'A b'}}]}", "\"A b\" is not a name"),
        ("{ingress: [{port: {number: 80, protocol: HTTP, targetPort: 81}}]}", "has no effect in a Sidecar"),
        (
            "{ingress: [{port: {number: 80, protocol: HTTP}}, {port: {number: 80, protocol: TCP}}]}",
            "spec.ingress[1].port.number: 80 has an ingress listener already",
        ),
        ("{ingress: [{port: {number: 80, protocol: HTTP}, bind: x}]}", "\"x\" is not an IP address"),
        (
            "{ingress: [{port: {number: 80, protocol: HTTP}, defaultEndpoint: '10.0.0.1:80'}]}",
            "is no place in the workload",
        ),
        ("{ingress: [{port: {number: 80, protocol: HTTP}, defaultEndpoint: '127.0.0.1:x'}]}", "is no place"),
        (
            "{ingress: [{port: {number: 80, protocol: HTTP}, defaultEndpoint: 'unix://x'}]}",
            "not an absolute path",
        ),
        (
            "{ingress: [{port: {number: 80, protocol: HTTP}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}",
            "protocol \"HTTP\" has no TLS",
        ),
        (
            "{ingress: [{port: {number: 443, protocol: HTTPS}, tls: {mode: ISTIO_MUTUAL}}]}",
            "ISTIO_MUTUAL is for gateways only",
        ),
        (
            "{ingress: [{port: {number: 443, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: x}}]}",
            "spec.ingress[0].tls.credentialName: is for gateways only",
        ),
        ("{ingress: [{port: {number: 80, protocol: HTTP}, connectionPool: {}}]}", "connectionPool"),
        ("{inboundConnectionPool: {tcp: {maxConnections: -1}}}", "inboundConnectionPool.tcp.maxConnections"),
        ("{egress: [{hosts: []}]}", "spec.egress[0].hosts: is missing"),
        ("{egress: [{hosts: ['./*']}, {hosts: ['*/*']}]}", "spec.egress[0].port: is missing"),
        (
            "{egress: [{port: {number: 80, protocol: HTTP}, hosts: ['./*']}, {port: {number: 80, protocol: TCP}, hosts: ['./*']}]}",
            "80 has an egress listener already",
        ),
        ("{egress: [{port: {number: 0, protocol: HTTP}, hosts: ['./*']}]}", "must be a Unix socket"),
        (
            "{egress: [{port: {number: 0, protocol: HTTP}, bind: 'unix:///x', captureMode: IPTABLES, hosts: ['./*']}]}",
            "cannot redirect to a Unix socket",
        ),
        (
            "{egress: [{port: {number: 80, protocol: HTTP}, bind: 'unix:///x', hosts: ['./*']}]}",
            "is not an IP address",
        ),
        ("{egress: [{hosts: [reviews]}]}", "\"reviews\" has no namespace"),
        ("{egress: [{hosts: ['A_/x.com']}]}", "\"A_\" is not a namespace"),
        ("{egress: [{hosts: ['*/prometheus']}]}", "is a short name in no namespace"),
        ("{egress: [{hosts: ['./*x.com']}]}", "has a part of a label"),
        ("{egress: [{hosts: ['./a..com']}]}", "is not a host name"),
        (
            "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.b.c, port: {number: 80}}}}",
            "needs mode: ALLOW_ANY",
        ),
        (
            "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b.c}}}",
            "egressProxy.port: is missing",
        ),
        (
            "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: '*.c', port: {number: 80}}}}",
            "is a wildcard",
        ),
    ] {
        check(spec, Severity::Error, want);
    }
}

#[test]
fn what_was_hardly_meant_is_told() {
    for (spec, want) in [
        ("{workloadSelector: {}, egress: [{hosts: ['./*']}]}", "applies to all workloads"),
        ("{egress: [{hosts: ['monitoring/prometheus']}]}", "prometheus.monitoring.svc.cluster.local"),
        ("{egress: [{hosts: ['./prometheus']}]}", "is a short name"),
        ("{egress: [{hosts: ['./a.com', './a.com']}]}", "is double"),
        ("{egress: [{hosts: ['*/*', 'x/*']}]}", "stands for all hosts"),
        (
            "{ingress: [{port: {number: 80, protocol: TCP}, connectionPool: {http: {maxRetries: 1}}}]}",
            "only the TCP settings apply",
        ),
        (
            "{ingress: [{port: {number: 443, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}",
            "ENABLE_TLS_ON_SIDECAR_INGRESS",
        ),
    ] {
        check(spec, Severity::Warning, want);
    }
}

#[test]
fn what_works_is_silent() {
    for spec in [
        "{egress: [{hosts: ['./*', 'istio-system/*', '*/a.com', '~x/*', '~/b.com']}]}",
        "{egress: [{port: {number: 15080, protocol: HTTP_PROXY}, bind: 127.0.0.1, captureMode: NONE, hosts: ['*/*']}, {hosts: ['./*']}]}",
        "{egress: [{port: {number: 0, protocol: TCP}, bind: 'unix:///var/run/x', hosts: ['./*']}]}",
        "{ingress: [{port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: '[::1]:8080', captureMode: NONE}]}",
        "{ingress: [{port: {number: 80, protocol: ''}, defaultEndpoint: 'unix://@x', connectionPool: {tcp: {maxConnections: 1}}}]}",
        "{outboundTrafficPolicy: {}}",
        "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: egress.istio-system.svc.cluster.local, subset: v1, port: {number: 80}}}}",
        "{inboundConnectionPool: {http: {http1MaxPendingRequests: 2}}}",
    ] {
        assert!(said(spec).is_empty(), "{spec}: {:?}", said(spec));
    }
}
