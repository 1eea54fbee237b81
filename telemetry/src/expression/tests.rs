use proptest::prelude::*;

use super::{Expression, Sources};
use crate::attributes::fake::Fake;
use crate::attributes::{Attribute, Metadata};
use crate::node::Node;
use crate::peer::Workload;

fn value(text: &str) -> String {
    let fake = Fake::default()
        .text(Attribute::RequestHost, "b:80")
        .text(Attribute::RequestUrlPath, "/api/v1/items")
        .text(Attribute::RequestMethod, "GET")
        .number(Attribute::ResponseCode, 503)
        .number(Attribute::DestinationPort, 8080)
        .request("x-user", "jo")
        .metadata(Metadata::Cluster, "istio", "config", "rule");
    let node = Node::parse(r#"{"NAME":"a-1","NAMESPACE":"x","LABELS":{"app":"a"}}"#).unwrap();
    let peer = Workload { name: "peer".into(), app: "p".into(), ..Workload::default() };
    let sources = Sources { attributes: &fake, peer: Some(&peer), is_peer_downstream: true, node: &node };
    Expression::new(text).value(&sources)
}

#[test]
fn what_users_write_has_a_value() {
    for (text, expected) in [
        ("request.host", "b:80"),
        ("request.url_path", "/api/v1/items"),
        ("request.headers['x-user']", "jo"),
        ("request.headers['X-User']", "jo"),
        ("\"fixed\"", "fixed"),
        ("'fixed'", "fixed"),
        ("response.code", "503"),
        ("string(destination.port)", "8080"),
        ("response.code >= 500", "true"),
        ("response.code >= 500 ? 'bad' : 'good'", "bad"),
        ("has(request.headers['x-user']) ? 'a' : 'b'", "unknown"),
        ("has(request.referer) ? request.referer : 'none'", "none"),
        ("has(request.host) ? request.host : 'none'", "b:80"),
        ("request.url_path.startsWith('/api') && request.method == 'GET'", "true"),
        ("request.url_path.matches('^/api/v[0-9]+/')", "true"),
        ("request.method + ' ' + request.host", "GET b:80"),
        ("'x-user' in request.headers || true", "true"),
        ("node.metadata['NAMESPACE']", "x"),
        ("node.metadata.LABELS['app']", "a"),
        ("downstream_peer.workload", "peer"),
        ("downstream_peer.labels['app'].value", "p"),
        ("filter_state['downstream_peer'].app", "p"),
        ("filter_state.state", "kept"),
        ("xds.cluster_metadata.filter_metadata['istio']['config']", "rule"),
        ("connection.mtls", "false"),
        ("['a', 'b'].exists(x, x == request.method) ? 'y' : 'n'", "n"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn what_has_no_value_is_unknown() {
    for text in [
        "request.referer",
        "request.headers['else']",
        "upstream_peer.workload",
        "request",
        "request.",
        "",
        "nothing.at_all",
        "1 / 0",
        "request.host | 'x'",
        "request.duration",
        "[request.host]",
        &"(".repeat(200),
        &"[".repeat(4000),
        &"!".repeat(4000),
        &"-".repeat(4000),
        &"- ".repeat(2000),
        &"1+".repeat(2000),
        &"a.".repeat(2000),
        &"a?b:".repeat(1000),
        &"a in ".repeat(800),
        &"!".repeat(10_000),
    ] {
        assert_eq!(value(text), "unknown", "{text}");
    }
}

#[test]
fn what_is_as_deep_as_allowed_has_a_value() {
    let deep = format!("{}'x'{}", "(".repeat(super::DEEPEST), ")".repeat(super::DEEPEST));
    assert_eq!(value(&deep), "x");
    let long = format!("'x'{}", "+ 'x'".repeat(super::DEEPEST_CALL - 1));
    assert_eq!(value(&long).len(), super::DEEPEST_CALL);
    assert_eq!(value(&format!("{long} + 'x'")), "unknown");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_harmless(text in "[a-z.'\\[\\](){}?:!<>=&|0-9+* -]{0,90}") {
        value(&text);
    }
}
