use std::sync::Arc;

use super::Filter;
use crate::attributes::Attribute;
use crate::attributes::fake::Fake;
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
    filter.config().registry.expire(registry::seconds() + 61);
    assert_eq!(line(&filter, "istio_tcp_received_bytes_total", "tcp-idle"), None);
    filter.data(&Fake::default(), 0, 2);
    assert!(line(&filter, "istio_tcp_received_bytes_total", "tcp-idle").unwrap().ends_with("} 2"));
}
