//! The module inside a real Envoy: two proxies' filters in one process, from a client
//! through both to an application, over mutual TLS; and what is shown at
//! `/stats/prometheus`.
//!
//! Needs Envoy (`ISTIO_TEST_ENVOY`); without it the tests are left out, unless
//! `ISTIO_TEST_REQUIRE` is 1.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test, without a runtime: it waits by sleeping and is told of Envoy by its environment"
)]

#[path = "envoy/application.rs"]
mod application;
#[path = "envoy/bootstrap.rs"]
mod bootstrap;
#[path = "envoy/metrics.rs"]
mod metrics;
#[path = "envoy/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;

use application::Application;
use metrics::{Metrics, until};
use process::Envoy;

/// What the client would like to be.
const SPOOFED: &str =
    "x-envoy-peer-metadata: CgwKBkxBQkVMUxICKgAKCwoETkFNRRIDGgFh\r\nx-envoy-peer-metadata-id: other\r\n";

/// The labels that both sides tell of the two workloads, which are one here.
const BOTH: &[(&str, &str)] = &[
    ("source_workload", "a"),
    ("source_canonical_service", "a-service"),
    ("source_canonical_revision", "v1"),
    ("source_workload_namespace", "x"),
    ("source_principal", "spiffe://cluster.local/ns/x/sa/a"),
    ("source_app", "a"),
    ("source_version", "v1"),
    ("source_cluster", "c1"),
    ("destination_workload", "a"),
    ("destination_workload_namespace", "x"),
    ("destination_principal", "spiffe://cluster.local/ns/x/sa/a"),
    ("destination_app", "a"),
    ("destination_version", "v1"),
    ("destination_service", "b.x.svc.cluster.local"),
    ("destination_canonical_service", "a-service"),
    ("destination_canonical_revision", "v1"),
    ("destination_service_name", "b"),
    ("destination_service_namespace", "x"),
    ("destination_cluster", "c1"),
];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    BOTH.iter().copied().chain(more.iter().copied()).collect()
}

/// One request on its own connection; the whole answer.
fn ask(port: u16, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\nte: trailers\r\n{headers}");
    let length = if headers.contains("chunked") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_are_counted_on_both_sides() {
    let application = Application::start();
    let Some(envoy) = Envoy::start(&application, &[]) else { return };
    let ports = &envoy.ports;
    for _ in 0..3 {
        let answer = ask(ports.out, "/ok", SPOOFED, "");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        assert!(!answer.contains("x-envoy-peer-metadata"), "the client sees none of it: {answer}");
    }
    for request in application.requests() {
        assert!(!request.contains("x-envoy-peer-metadata"), "nor does the application: {request}");
    }
    assert!(ask(ports.out, "/reset", "", "").starts_with("HTTP/1.1 503"));
    assert!(ask(ports.out, "/nowhere", "", "").starts_with("HTTP/1.1 404"));
    assert!(ask(ports.out, "/direct", "", "").starts_with("HTTP/1.1 418"));
    let result = |code, flags| {
        [
            ("response_code", code),
            ("response_flags", flags),
            ("grpc_response_status", ""),
            ("request_protocol", "http"),
        ]
    };
    let metrics = until(ports.scrape, |metrics| {
        metrics.sum("istio_requests_total", &[("reporter", "source")]) == 6
            && metrics.sum("istio_requests_total", &[("reporter", "destination")]) == 4
    });
    let source = [("reporter", "source"), ("connection_security_policy", "unknown")];
    let destination = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
    for side in [source, destination] {
        let ok = [with(&side), result("200", "-").to_vec()].concat();
        for name in [
            "istio_requests_total",
            "istio_request_bytes_count",
            "istio_response_bytes_count",
            "istio_request_duration_milliseconds_count",
        ] {
            assert_eq!(metrics.exact(name, &ok), Some(3), "{name} {side:?}\n{metrics}");
        }
        assert_eq!(
            metrics.exact("istio_request_bytes_bucket", &[ok.clone(), vec![("le", "+Inf")]].concat()),
            Some(3)
        );
        let sum = metrics.exact("istio_response_bytes_sum", &ok).unwrap();
        assert!((15..3000).contains(&sum), "three times hello with headers: {sum}");
    }
    // Between the proxies the answer is a 503 as any other.
    let counted = |side: &str, code, flags| {
        metrics.sum(
            "istio_requests_total",
            &[("reporter", side), ("response_code", code), ("response_flags", flags)],
        )
    };
    assert_eq!(counted("destination", "503", "UC"), 1);
    assert_eq!(counted("source", "503", "-"), 1);
    assert_eq!(counted("source", "404", "NR"), 1);
    assert_eq!(counted("source", "418", "-"), 1);
    let nowhere =
        [("response_code", "404"), ("destination_service", "b"), ("destination_workload", "unknown")];
    assert_eq!(metrics.sum("istio_requests_total", &nowhere), 1, "the host that the client named");
    assert_eq!(metrics.sum("istio_telemetry_faults_total", &[]), 0);
    assert_eq!(metrics.kind("istio_requests_total"), Some("counter"));
    assert_eq!(metrics.kind("istio_request_bytes"), Some("histogram"));
    assert!(metrics.has("envoy_cluster_upstream_rq_total"), "Envoy's own are there, too");
}

#[test]
fn messages_and_status_of_grpc_are_counted() {
    let application = Application::start();
    let Some(envoy) = Envoy::start(&application, &[]) else { return };
    let headers = "content-type: application/grpc\r\ntransfer-encoding: chunked\r\n";
    // Two messages of one byte, of which the second is cut.
    let body = "8\r\n\0\0\0\0\u{1}a\0\0\r\n4\r\n\0\0\u{1}b\r\n0\r\n\r\n";
    let answer = ask(envoy.ports.out, "/grpc", headers, body);
    assert!(answer.contains("grpc-status: 5"), "{answer}");
    let metrics = until(envoy.ports.scrape, |metrics| metrics.sum("istio_requests_total", &[]) == 2);
    for side in ["source", "destination"] {
        let messages = with(&[("reporter", side)]);
        assert_eq!(metrics.exact("istio_request_messages_total", &messages), Some(2), "{side}\n{metrics}");
        assert_eq!(metrics.exact("istio_response_messages_total", &messages), Some(3), "{side}");
        let labels = [
            ("reporter", side),
            ("request_protocol", "grpc"),
            ("grpc_response_status", "5"),
            ("response_code", "200"),
        ];
        assert_eq!(metrics.sum("istio_requests_total", &labels), 1, "{side}\n{metrics}");
    }
}

#[test]
fn connections_and_bytes_are_counted() {
    let application = Application::start();
    let Some(envoy) = Envoy::start(&application, &[]) else { return };
    let mut stream = TcpStream::connect(("127.0.0.1", envoy.ports.tcp_out)).unwrap();
    let mut echo = [0; 5];
    stream.write_all(b"first").unwrap();
    stream.read_exact(&mut echo).unwrap();
    let side = |side, security| {
        let tcp = [
            ("reporter", side),
            ("connection_security_policy", security),
            ("request_protocol", "tcp"),
            ("response_flags", "-"),
        ];
        // Only the certificates tell the peers of each other.
        with(&tcp)
            .into_iter()
            .map(|(name, value)| {
                let peer = if side == "source" { "destination" } else { "source" };
                let told = [
                    "_workload",
                    "_app",
                    "_version",
                    "_cluster",
                    "_canonical_service",
                    "_canonical_revision",
                ];
                let is_peer = told.iter().any(|end| name == format!("{peer}{end}"));
                (
                    name,
                    if !is_peer {
                        value
                    } else if name.ends_with("revision") {
                        "latest"
                    } else {
                        "unknown"
                    },
                )
            })
            .collect::<Vec<_>>()
    };
    let sides = [side("source", "unknown"), side("destination", "mutual_tls")];
    let open = |metrics: &Metrics| {
        let all = [
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
            "istio_tcp_received_bytes_total",
            "istio_tcp_sent_bytes_total",
        ];
        sides.clone().map(|labels| all.map(|name| metrics.exact(name, &labels)))
    };
    let expected = |closed, bytes| [[Some(1), Some(closed), Some(bytes), Some(bytes)]; 2];
    let metrics = until(envoy.ports.scrape, |metrics| open(metrics) == expected(0, 5));
    assert_eq!(open(&metrics), expected(0, 5), "while it is open\n{metrics}");
    stream.write_all(b"again").unwrap();
    stream.read_exact(&mut echo).unwrap();
    drop(stream);
    let metrics = until(envoy.ports.scrape, |metrics| open(metrics) == expected(1, 10));
    assert_eq!(open(&metrics), expected(1, 10), "{metrics}");
}

#[test]
fn what_a_client_in_plaintext_says_is_not_believed() {
    let application = Application::start();
    let Some(envoy) = Envoy::start(&application, &[]) else { return };
    let answer = ask(envoy.ports.plain, "/ok", SPOOFED, "");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("x-envoy-peer-metadata"), "{answer}");
    let metrics = until(envoy.ports.scrape, |metrics| metrics.sum("istio_requests_total", &[]) == 1);
    let labels = [
        ("source_workload", "unknown"),
        ("source_principal", "unknown"),
        ("connection_security_policy", "none"),
        ("destination_service", "a-service"),
    ];
    assert_eq!(metrics.sum("istio_requests_total", &labels), 1, "{metrics}");
    // Out of the mesh goes nothing either.
    ask(envoy.ports.out, "/external", SPOOFED, "");
    for request in application.requests() {
        assert!(!request.contains("x-envoy-peer-metadata"), "{request}");
    }
    let metrics = until(envoy.ports.scrape, |metrics| metrics.sum("istio_requests_total", &[]) == 2);
    // Of an endpoint that does not tell, istiod has.
    let labels = [
        ("reporter", "source"),
        ("destination_workload", "w"),
        ("destination_canonical_revision", "r"),
        ("destination_cluster", "k"),
    ];
    assert_eq!(metrics.sum("istio_requests_total", &labels), 1, "{metrics}");
}

#[test]
fn tags_are_what_expressions_say() {
    let application = Application::start();
    let Some(envoy) = Envoy::start(&application, &[]) else { return };
    ask(envoy.ports.tags, "/ok", "x-user: jo\r\n", "");
    let metrics = until(envoy.ports.scrape, |metrics| metrics.sum("istio_requests_total", &[]) == 1);
    let port = envoy.ports.tags.to_string();
    let labels = [("user", "jo"), ("port", &*port), ("kind", "good"), ("host", "b"), ("bad", "unknown")];
    assert_eq!(metrics.sum("istio_requests_total", &labels), 1, "{metrics}");
    assert!(!metrics.has("istio_request_bytes_count"), "dropped");
    assert_eq!(metrics.sum("istio_requests_total", &[("reporter", "destination")]), 0, "removed");
    assert_eq!(metrics.sum("istio_own_total", &[("user", "jo")]), 200);
}

#[test]
fn a_fault_takes_nothing_down() {
    for hook in ["request_headers", "response_headers", "complete", "data", "closed"] {
        let application = Application::start();
        let Some(envoy) = Envoy::start(&application, &[("ISTIO_TELEMETRY_TEST_FAULT", hook)]) else { return };
        let is_tcp = matches!(hook, "data" | "closed");
        for _ in 0..2 {
            if is_tcp {
                let mut stream = TcpStream::connect(("127.0.0.1", envoy.ports.tcp_out)).unwrap();
                let mut echo = [0; 5];
                stream.write_all(b"hello").unwrap();
                stream.read_exact(&mut echo).unwrap();
                assert_eq!(&echo, b"hello");
            } else {
                let answer = ask(envoy.ports.out, "/ok", "", "");
                assert!(answer.starts_with("HTTP/1.1 200"), "{hook}: {answer}");
            }
        }
        // One for each side's configuration, and then they are off.
        let metrics =
            until(envoy.ports.scrape, |metrics| metrics.sum("istio_telemetry_faults_total", &[]) == 2);
        assert_eq!(metrics.sum("istio_telemetry_faults_total", &[]), 2, "{hook}");
        assert!(!metrics.has("istio_requests_total"), "{hook}: nothing is counted any more");
        assert!(envoy.log().contains(&format!("a fault in {hook}")), "{hook}");
    }
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    let application = Application::start();
    let Some(output) = Envoy::validate(&application, |bootstrap| {
        bootstrap.replace(r#""direction":"outbound""#, r#""direction":"sideways""#)
    }) else {
        return;
    };
    assert!(
        output.contains("the configuration of istio.stats is not usable: unknown variant `sideways`"),
        "{output}"
    );
}
