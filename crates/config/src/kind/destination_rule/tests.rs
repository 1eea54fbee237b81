use crate::{Severity, yaml};

/// What is said of a rule with this policy.
fn said(policy: &str) -> Vec<(Severity, String)> {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\n\
         spec: {{host: a, trafficPolicy: {{{policy}}}}}\n"
    );
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(policy: &str, severity: Severity, want: &str) {
    let all = said(policy);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{policy}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{policy}: {all:#?}");
}

#[test]
fn what_envoy_or_istio_refuse_is_refused() {
    for (policy, want) in [
        ("", "trafficPolicy: has no settings"),
        ("tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}", "exclude each other"),
        ("tunnel: {protocol: PUT, targetHost: a, targetPort: 1}", "tunnel.protocol: \"PUT\" is unknown"),
        ("tunnel: {targetHost: '*.a', targetPort: 1}", "tunnel.targetHost: \"*.a\" is a wildcard"),
        ("tunnel: {targetHost: a}", "tunnel.targetPort: 0 is not a port"),
        ("retryBudget: {percent: 101}", "retryBudget.percent: 101 is not a percentage"),
        ("loadBalancer: {consistentHash: {httpHeaderName: 'a b'}}", "\"a b\" is not the name of a header"),
        ("loadBalancer: {consistentHash: {httpCookie: {ttl: 1s}}}", "httpCookie.name: is missing"),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{name: b}, {name: b}]}}}",
            "there are two attributes \"b\"",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}",
            "65536 is not a prime number",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 9000000}}}",
            "9000000 is too large",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 9, ringHash: {}}}",
            "minimumRingSize: stands beside",
        ),
        ("loadBalancer: {warmup: {aggression: 1}}", "warmup.duration: is missing"),
        ("loadBalancer: {warmup: {duration: 1s, aggression: 0}}", "aggression: 0 must be greater"),
        ("loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}", "101 is not a percentage"),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50, c: 40}}]}}",
            "the weights make 90",
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {b: 50, b/c: 50}}]}}",
            "\"b/c\" and \"b\" have places in common",
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {b: 100}}, {from: a/*, to: {b: 100}}]}}",
            "\"a/*\" and \"*\" have places in common",
        ),
        ("loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}", "cannot fail over to itself"),
        ("loadBalancer: {localityLbSetting: {failover: [{from: a/b, to: c}]}}", "\"a/b\" is not a region"),
        (
            "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}}",
            "says what failover says",
        ),
        ("loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {}}", "exclude each other"),
        ("connectionPool: {}", "connectionPool: is empty"),
        ("connectionPool: {http: {http2KeepAlive: {interval: 1s}}}", "http2KeepAlive.timeout: is missing"),
        (
            "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}",
            "useClientProtocol: excludes",
        ),
        ("connectionPool: {tcp: {idleTimeout: 1us}}", "tcp.idleTimeout: 0.000001s is too short"),
        ("outlierDetection: {consecutiveLocalOriginFailures: 1}", "needs splitExternalLocalOriginErrors"),
        ("outlierDetection: {outlierDetectionHttpErrorCodes: [42]}", "42 is not a code of HTTP"),
        ("outlierDetection: {maxEjectionPercent: 101}", "101 is not a percentage"),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: a, useSourceIp: true}}",
            "httpHeaderName and useSourceIp exclude each other: hashKey takes one of",
        ),
        (
            "loadBalancer: {backendUtilization: {weightUpdatePeriod: 1s, metricNamesForComputingUtilization: ['']}}",
            "metricNamesForComputingUtilization[0]: is empty",
        ),
        ("tls: {mode: SIMPLE, credentialName: 'configmap://a'}", "names no ConfigMap"),
        ("tls: {mode: MUTUAL, privateKey: /k}", "tls.clientCertificate: is missing"),
        ("tls: {mode: MUTUAL, clientCertificate: /a~b, privateKey: /k}", "must not hold ~"),
        ("tls: {mode: SIMPLE, credentialName: a, caCertificates: /ca}", "stands beside files"),
        ("tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}", "trusts any certificate"),
        ("portLevelSettings: [{port: {number: 80}}]", "portLevelSettings[0]: has no settings"),
    ] {
        check(policy, Severity::Error, want);
    }
}

#[test]
fn what_has_no_effect_is_told() {
    for (policy, want) in [
        (
            "loadBalancer: {backendUtilization: {}, zoneAwareLbSetting: {}}",
            "zoneAwareLbSetting: has no effect with backendUtilization",
        ),
        ("loadBalancer: {simple: RANDOM, warmupDurationSecs: 1s}", "warmupDurationSecs: has no effect"),
        ("loadBalancer: {consistentHash: {}}", "names nothing to hash by"),
        ("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}", "without outlierDetection"),
        ("outlierDetection: {consecutiveErrors: 5}", "consecutiveErrors: has no effect"),
        ("tls: {mode: SIMPLE, credentialName: a}", "credentialName: is for gateways only"),
        ("tls: {mode: ISTIO_MUTUAL, privateKey: /k}", "privateKey: has no effect with mode ISTIO_MUTUAL"),
    ] {
        check(policy, Severity::Warning, want);
    }
}

#[test]
fn what_works_is_silent() {
    for policy in [
        "proxyProtocol: {version: V2}, retryBudget: {percent: 25.5, minRetryConcurrency: 10}",
        "tunnel: {protocol: CONNECT, targetHost: a.example.com, targetPort: 443}",
        "loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 0s, path: /}, maglev: {tableSize: 65537}}}",
        "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, minimumPercent: 5, aggression: 1.5}}",
        "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}, outlierDetection: {}",
        "connectionPool: {tcp: {idleTimeout: 0s}, http: {http2KeepAlive: {interval: 1s, timeout: 1s}}}",
        "tls: {mode: SIMPLE, sni: a.example.com, subjectAltNames: [a.example.com], caCertificates: /ca}",
        "tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}",
        "tls: {mode: SIMPLE, credentialName: 'configmap://a/b'}",
        "loadBalancer: {backendUtilization: {}}",
    ] {
        assert!(said(policy).is_empty(), "{policy}: {:?}", said(policy));
    }
}
