use std::sync::Arc;

use super::Filter;
use crate::attributes::fake::Fake;
use crate::attributes::{Attribute, Metadata};
use crate::config::Config;
use crate::node::Node;
use crate::settings::Settings;

/// A configuration with a registry of its own.
fn config(json: &str, workload: &str) -> Arc<Config> {
    let node = format!(r#"{{"NAME":"a-1","NAMESPACE":"x","WORKLOAD_NAME":"{workload}"}}"#);
    let node: &'static Node = Box::leak(Box::new(Node::parse(&node).unwrap()));
    Arc::new(Config::with(Settings::parse(json.as_bytes()).unwrap(), node, Box::leak(Box::default())))
}

/// Lines about a workload, without the names of its buckets.
fn lines(config: &Config, workload: &str) -> Vec<String> {
    let text = config.registry.text();
    let about = format!("_workload=\"{workload}\"");
    text.lines()
        .filter(|line| line.contains(&about) && !line.contains("_bucket"))
        .map(str::to_owned)
        .collect()
}

fn one(lines: &[String], name: &str) -> String {
    let found: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
    assert_eq!(found.len(), 1, "{name} in {lines:#?}");
    found[0].clone()
}

#[test]
fn a_request_is_counted_once() {
    let config = config(r#"{"direction":"outbound"}"#, "http-once");
    for _ in 0..3 {
        let mut stream = Fake::default()
            .text(Attribute::XdsClusterName, "outbound|80||b.y.svc.cluster.local")
            .text(Attribute::RequestHost, "b")
            .metadata(Metadata::Host, "istio", "workload", "b-v1;y;b;v1;k")
            .number(Attribute::ResponseCode, 200)
            .number(Attribute::RequestTotalSize, 100)
            .number(Attribute::ResponseTotalSize, 1000);
        let mut filter = Filter::new(Arc::clone(&config));
        filter.request_headers(&mut stream);
        filter.response_headers(&mut stream);
        filter.complete(&stream);
        filter.complete(&stream);
    }
    let lines = lines(&config, "http-once");
    let requests = one(&lines, "istio_requests_total");
    assert!(requests.ends_with("} 3"), "{requests}");
    for label in [
        "reporter=\"source\"",
        "destination_workload=\"b-v1\"",
        "destination_service=\"b.y.svc.cluster.local\"",
        "destination_service_name=\"b\"",
        "destination_service_namespace=\"y\"",
        "destination_canonical_revision=\"v1\"",
        "response_code=\"200\"",
        "response_flags=\"-\"",
        "request_protocol=\"http\"",
        "grpc_response_status=\"\"",
        "connection_security_policy=\"unknown\"",
    ] {
        assert!(requests.contains(label), "{label} in {requests}");
    }
    assert!(one(&lines, "istio_request_bytes_sum").ends_with("} 300"));
    assert!(one(&lines, "istio_response_bytes_count").ends_with("} 3"));
    assert!(one(&lines, "istio_request_duration_milliseconds_count").ends_with("} 3"));
    assert!(!lines.iter().any(|line| line.starts_with("istio_request_messages")), "only gRPC has messages");
}

#[test]
fn messages_of_grpc_are_counted_as_they_pass() {
    let config = config(r#"{"direction":"inbound"}"#, "http-grpc");
    let mut stream = Fake::default().request("content-type", "application/grpc");
    let mut filter = Filter::new(Arc::clone(&config));
    filter.request_headers(&mut stream);
    stream.body = vec![0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0];
    filter.request_body(&stream);
    assert!(
        one(&lines(&config, "http-grpc"), "istio_request_messages_total").ends_with("} 2"),
        "before the end"
    );
    filter.response_headers(&mut stream);
    stream.body = vec![0, 0, 0, 0, 0];
    filter.response_body(&stream);
    let stream = stream.number(Attribute::ResponseGrpcStatus, 0).number(Attribute::ResponseCode, 200);
    filter.complete(&stream);
    let lines = lines(&config, "http-grpc");
    let messages = one(&lines, "istio_response_messages_total");
    assert!(messages.ends_with("} 1") && !messages.contains("request_protocol"), "{messages}");
    let requests = one(&lines, "istio_requests_total");
    assert!(
        requests.contains("request_protocol=\"grpc\"") && requests.contains("grpc_response_status=\"0\"")
    );
}

#[test]
fn different_results_are_different_series() {
    let config = config(r#"{"direction":"inbound"}"#, "http-results");
    for (code, flags) in [(200, 0), (503, 1 << 5), (200, 0), (0, 1 << 14)] {
        let stream =
            Fake::default().number(Attribute::ResponseCode, code).number(Attribute::ResponseFlags, flags);
        Filter::new(Arc::clone(&config)).complete(&stream);
    }
    let lines = lines(&config, "http-results");
    let requests: Vec<_> = lines.iter().filter(|line| line.starts_with("istio_requests_total")).collect();
    assert_eq!(requests.len(), 3, "{requests:#?}");
    assert!(requests.iter().any(|line| line.contains("\"503\"") && line.contains("\"UF\"")));
    assert!(requests.iter().any(|line| line.contains("response_code=\"0\"") && line.contains("\"DC\"")));
}

#[test]
fn values_of_expressions_make_series() {
    let json = r#"{"direction":"inbound","metrics":[{"name":"requests_total","dimensions":{"user":"request.headers['x-user']"}}]}"#;
    let config = config(json, "http-tags");
    for user in ["a", "b", "a"] {
        let stream = Fake::default().request("x-user", user);
        Filter::new(Arc::clone(&config)).complete(&stream);
    }
    let lines = lines(&config, "http-tags");
    assert!(lines.iter().any(|line| line.contains("user=\"a\"") && line.ends_with("} 2")));
    assert!(one(&lines, "istio_request_bytes_count").ends_with("} 3"), "the tag is of the other metric");
}
