use std::sync::Arc;
use std::time::Instant;

use super::Filter;
use crate::attributes::fake::Fake;
use crate::attributes::{Attribute, Metadata};
use crate::config::Config;
use crate::node::Node;
use crate::registry;
use crate::settings::Settings;

fn config(json: &str, workload: &str) -> Arc<Config> {
    let node = format!(r#"{{"NAME":"a-1","NAMESPACE":"x","WORKLOAD_NAME":"{workload}"}}"#);
    let node: &'static Node = Box::leak(Box::new(Node::parse(&node).unwrap()));
    Arc::new(Config::with(Settings::parse(json.as_bytes()).unwrap(), node, Box::leak(Box::default())))
}

fn line(filter: &Filter, name: &str, workload: &str) -> Option<String> {
    let text = filter.config().registry.text();
    let about = format!("_workload=\"{workload}\"");
    text.lines().find(|line| line.starts_with(name) && line.contains(&about)).map(str::to_owned)
}

#[test]
fn bytes_wait_until_the_destination_is_chosen() {
    let mut filter = Filter::new(config(r#"{"direction":"outbound"}"#, "tcp-wait"));
    filter.data(&Fake::default(), 0, 10);
    assert_eq!(line(&filter, "istio_tcp_received_bytes_total", "tcp-wait"), None);
    let chosen = Fake::default()
        .text(Attribute::UpstreamAddress, "10.0.0.1:9000")
        .text(Attribute::UpstreamUriSanPeerCertificate, "spiffe://d/ns/y/sa/b")
        .text(Attribute::XdsClusterName, "outbound|9000||tcp.y.svc.cluster.local");
    filter.data(&chosen, 5, 0);
    let opened = line(&filter, "istio_tcp_connections_opened_total", "tcp-wait").unwrap();
    for label in [
        "reporter=\"source\"",
        "destination_service=\"tcp.y.svc.cluster.local\"",
        "destination_principal=\"spiffe://d/ns/y/sa/b\"",
        "destination_workload_namespace=\"y\"",
        "request_protocol=\"tcp\"",
        "response_flags=\"-\"",
    ] {
        assert!(opened.contains(label), "{label} in {opened}");
    }
    assert!(!opened.contains("response_code"));
    assert!(line(&filter, "istio_tcp_received_bytes_total", "tcp-wait").unwrap().ends_with("} 10"));
    assert!(line(&filter, "istio_tcp_sent_bytes_total", "tcp-wait").unwrap().ends_with("} 5"));
    assert!(line(&filter, "istio_tcp_connections_closed_total", "tcp-wait").unwrap().ends_with("} 0"));
    filter.closed(&chosen);
    filter.closed(&chosen);
    assert!(line(&filter, "istio_tcp_connections_closed_total", "tcp-wait").unwrap().ends_with("} 1"));
}

/// A connection for which an endpoint of that text was chosen.
fn chosen(endpoint: &str, principal: &str) -> Fake {
    Fake::default()
        .text(Attribute::UpstreamAddress, "10.0.0.1:9000")
        .text(Attribute::UpstreamUriSanPeerCertificate, principal)
        .text(Attribute::XdsClusterName, "outbound|9000||tcp.y.svc.cluster.local")
        .metadata(Metadata::Host, "istio", "workload", endpoint)
}

/// Labels of the destination of a connection that was opened by `own`: workload, namespace,
/// app, version, canonical service and revision, cluster.
fn destination(own: &str, direction: &str, connection: &Fake) -> [String; 7] {
    let mut filter = Filter::new(config(&format!(r#"{{"direction":"{direction}"}}"#), own));
    filter.closed(connection);
    let opened = line(&filter, "istio_tcp_connections_opened_total", own).unwrap();
    let value = |label: &str| {
        let begin = format!("destination_{label}=\"");
        let (_, rest) = opened.split_once(&begin).unwrap_or_else(|| panic!("{label} in {opened}"));
        rest.split('"').next().unwrap().to_owned()
    };
    [
        value("workload"),
        value("workload_namespace"),
        value("app"),
        value("version"),
        value("canonical_service"),
        value("canonical_revision"),
        value("cluster"),
    ]
}

#[test]
fn the_source_knows_the_destination_by_its_endpoint() {
    let told = "web-v2;shop;web;v2;east";
    let known = ["web-v2", "shop", "unknown", "unknown", "web", "v2", "east"];
    assert_eq!(destination("tcp-told", "outbound", &chosen(told, "")), known);
    assert_eq!(destination("tcp-told-gateway", "gateway", &chosen(told, "")), known);
    // The certificate knows the namespace better.
    let proven = destination("tcp-proven", "outbound", &chosen(told, "spiffe://d/ns/y/sa/b"));
    assert_eq!(proven, ["web-v2", "y", "unknown", "unknown", "web", "v2", "east"]);
    // Behind the gateway of another network is anybody.
    let far = destination("tcp-far", "outbound", &chosen(";;;;west", "spiffe://d/ns/y/sa/b"));
    assert_eq!(far, ["unknown", "y", "unknown", "unknown", "unknown", "latest", "west"]);
    let nobody = ["unknown", "unknown", "unknown", "unknown", "unknown", "latest", "unknown"];
    for (number, text) in ["", "db.example.com", "a;b;c;d"].into_iter().enumerate() {
        let own = format!("tcp-nobody-{number}");
        assert_eq!(destination(&own, "outbound", &chosen(text, "")), nobody, "{text}");
    }
}

#[test]
fn connections_to_different_endpoints_are_counted_apart() {
    let config = config(r#"{"direction":"outbound"}"#, "tcp-apart");
    for endpoint in ["one;y;one;v1;c", "two;y;two;v1;c", "one;y;one;v1;c"] {
        Filter::new(Arc::clone(&config)).closed(&chosen(endpoint, ""));
    }
    let text = config.registry.text();
    let counts: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|workload| {
            let about = format!("destination_workload=\"{workload}\"");
            let is_it =
                |line: &&str| line.starts_with("istio_tcp_connections_closed_total") && line.contains(&about);
            text.lines().find(is_it).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        })
        .collect();
    assert_eq!(counts, [Some("2".to_owned()), Some("1".to_owned())]);
}

#[test]
fn expressions_of_connections_see_the_endpoint() {
    let json = r#"{"direction":"outbound","metrics":[{"name":"tcp_connections_opened_total",
        "dimensions":{"to":"upstream_peer.workload + '/' + upstream_peer.service"}}]}"#;
    let mut filter = Filter::new(config(json, "tcp-expression"));
    filter.closed(&chosen("web-v2;shop;web;v2;east", ""));
    let opened = line(&filter, "istio_tcp_connections_opened_total", "tcp-expression").unwrap();
    assert!(opened.contains("to=\"web-v2/web\""), "{opened}");
}

#[test]
fn the_destination_does_not_look_at_endpoints() {
    let json = r#"{"direction":"inbound"}"#;
    let mut filter = Filter::new(config(json, "tcp-inbound"));
    filter.closed(&chosen("web-v2;shop;web;v2;east", ""));
    let opened = line(&filter, "istio_tcp_connections_opened_total", "tcp-inbound").unwrap();
    assert!(opened.contains("source_workload=\"unknown\"") && !opened.contains("web-v2"), "{opened}");
}

#[test]
fn a_connection_without_bytes_is_counted_at_its_end() {
    let json = r#"{"direction":"inbound","service":{"host":"tcp.y.svc.cluster.local"}}"#;
    let mut filter = Filter::new(config(json, "tcp-none"));
    filter.closed(&Fake::default().number(Attribute::ResponseFlags, 1 << 5));
    let opened = line(&filter, "istio_tcp_connections_opened_total", "tcp-none").unwrap();
    assert!(opened.ends_with("} 1") && opened.contains("response_flags=\"UF\""), "{opened}");
    assert!(opened.contains("destination_service_name=\"tcp\"") && opened.contains("policy=\"none\""));
    assert!(line(&filter, "istio_tcp_connections_closed_total", "tcp-none").unwrap().ends_with("} 1"));
}

#[test]
fn a_connection_outlives_its_idle_series() {
    let json = r#"{"direction":"inbound","rotation_interval":"60s"}"#;
    let mut filter = Filter::new(config(json, "tcp-idle"));
    filter.data(&Fake::default(), 0, 1);
    filter.config().registry.expire(registry::seconds(Instant::now()) + 61);
    assert_eq!(line(&filter, "istio_tcp_received_bytes_total", "tcp-idle"), None);
    filter.data(&Fake::default(), 0, 2);
    assert!(line(&filter, "istio_tcp_received_bytes_total", "tcp-idle").unwrap().ends_with("} 2"));
}
