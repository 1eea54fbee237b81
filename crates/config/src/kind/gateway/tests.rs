use crate::{Severity, yaml};

/// What is said of a Gateway with these servers.
fn said(servers: &str) -> Vec<(Severity, String)> {
    let head = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\n";
    let text = format!("{head}spec: {{selector: {{istio: ingress}}, servers: [{servers}]}}\n");
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(servers: &str, severity: Severity, want: &str) {
    let all = said(servers);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{servers}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{servers}: {all:#?}");
}

fn http(inner: &str) -> String {
    format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']{inner}}}")
}

fn https(tls: &str) -> String {
    format!("{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.example], tls: {{{tls}}}}}")
}

#[test]
fn what_is_right_is_silent() {
    for servers in [
        http(""),
        http(", tls: {httpsRedirect: true}"),
        http(", bind: '::1', name: plain"),
        https("mode: SIMPLE, credentialName: a"),
        https("mode: MUTUAL, credentialNames: [a, b], subjectAltNames: [c], caCertCredentialName: d"),
        https("mode: OPTIONAL_MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /r, caCrl: /l"),
        https("mode: ISTIO_MUTUAL"),
        https("mode: PASSTHROUGH"),
        "{port: {number: 1, name: a, protocol: tcp}, hosts: ['ns/*.a.b', './c.d', '*/*', 10.0.0.1]}".into(),
        "{port: {name: a, protocol: HTTP}, hosts: ['*'], bind: 'unix:///run/a'}".into(),
    ] {
        assert!(said(&servers).is_empty(), "{servers}: {:#?}", said(&servers));
    }
}

#[test]
fn servers_that_cannot_be_are_refused() {
    let error = |servers: &str, want| check(servers, Severity::Error, want);
    error("", "spec.servers: is missing");
    error("{hosts: ['*']}", "spec.servers[0].port: is missing");
    error("{port: {number: 80, name: a, protocol: HTTP}}", "servers[0].hosts: is missing");
    error("{port: {number: 0, name: a, protocol: HTTP}, hosts: ['*']}", "port.number: 0 is not a port");
    error("{port: {number: 80, protocol: HTTP}, hosts: ['*']}", "port.name: is missing");
    error("{port: {number: 80, name: a, protocol: QUIC}, hosts: ['*']}", "protocol: \"QUIC\" is unknown");
    error("{port: {number: 80, name: a, protocol: UDP}, hosts: ['*']}", "protocol: \"UDP\" is unknown");
    error(
        "{port: {number: 80, name: a, protocol: HTTP, targetPort: 1}, hosts: ['*']}",
        "targetPort: has no effect",
    );
    error(
        "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*'], bind: 'unix:///a'}",
        "must be 0 or absent",
    );
    error(&http(", bind: localhost"), "bind: \"localhost\" is not an IP address");
    error(&http(", bind: 'unix://a'"), "has no absolute path");
    error(&format!("{}, {}", http(""), http("")), "\"http\" is the name of the port of servers[0]");
    for (host, want) in [
        ("short", "is a short name"),
        ("'*a.b'", "has a part of a label"),
        ("N/a.b", "\"N\" is not a namespace"),
        ("ns/", "is a short name"),
        ("a..b", "is not a host name"),
    ] {
        error(&format!("{{port: {{number: 80, name: a, protocol: HTTP}}, hosts: [{host}]}}"), want);
    }
}

#[test]
fn tls_must_have_what_it_needs() {
    let error = |tls: &str, want| check(&https(tls), Severity::Error, want);
    error("mode: SIMPLE", "serverCertificate: is missing");
    error("mode: SIMPLE, serverCertificate: /c", "privateKey: is missing");
    error("mode: SIMPLE, serverCertificate: /c~, privateKey: /k", "has a \"~\"");
    error(
        "mode: SIMPLE, tlsCertificates: [{serverCertificate: /c}]",
        "tlsCertificates[0].privateKey: is missing",
    );
    error("mode: MUTUAL, serverCertificate: /c, privateKey: /k", "caCertificates: is missing");
    error("mode: SIMPLE, credentialName: a, credentialNames: [b]", "credentialName and credentialNames");
    error("mode: ISTIO_MUTUAL, credentialName: a", "credentialName: has no place in mode ISTIO_MUTUAL");
    error("mode: SIMPLE, credentialName: a, caCrl: /l", "caCrl: has no effect beside credentialName");
    error(
        "mode: SIMPLE, serverCertificate: /c, privateKey: /k, caCrl: /l",
        "caCrl: has no effect in mode SIMPLE",
    );
    error("mode: MUTUAL, credentialName: a, verifyCertificateHash: [abc]", "is no SHA-256 of a certificate");
    error("mode: MUTUAL, credentialName: a, verifyCertificateSpki: [abc]", "is no SHA-256 of a public key");
    error(
        "mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
        "TLSV1_2 is below minProtocolVersion TLSV1_3",
    );
    error(
        "mode: MUTUAL, credentialName: a, caCertCredentialName: 'configmap://b'",
        "caCertCredentialName: \"configmap://b\" names no ConfigMap",
    );
    let server = |protocol: &str, tls: &str| {
        format!("{{port: {{number: 1, name: a, protocol: {protocol}}}, hosts: ['*']{tls}}}")
    };
    check(&server("HTTPS", ""), Severity::Error, "tls: is missing: protocol HTTPS needs a mode");
    let tls = ", tls: {mode: SIMPLE, credentialName: a}";
    check(&server("HTTP", tls), Severity::Error, "protocol HTTP has no TLS: use HTTPS");
    check(&server("TCP", tls), Severity::Error, "protocol TCP has no TLS: use TLS");
}

#[test]
fn what_has_no_effect_is_told() {
    let warning = |tls: &str, want| check(&https(tls), Severity::Warning, want);
    warning("mode: PASSTHROUGH, credentialName: a", "mode PASSTHROUGH ends no TLS");
    warning(
        "mode: SIMPLE, credentialName: a, subjectAltNames: [b]",
        "subjectAltNames: has no effect in mode SIMPLE",
    );
    warning("mode: SIMPLE, credentialName: a, httpsRedirect: true", "httpsRedirect: has no effect");
    warning("mode: SIMPLE, credentialName: a, cipherSuites: [FOO]", "is no cipher suite that Envoy knows");
    warning("mode: SIMPLE, credentialName: a, cipherSuites: [AES128-SHA, AES128-SHA]", "is named twice");
    warning("mode: SIMPLE, credentialName: a, ecdhCurves: [P-1]", "is no curve that Envoy knows");
    warning("mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_0", "need cipherSuites of theirs");
    warning("mode: SIMPLE, credentialName: 'configmap://n/b'", "a ConfigMap holds no key");
    check(&http(", defaultEndpoint: '127.0.0.1:80'"), Severity::Warning, "defaultEndpoint: has no effect");
}
