use super::*;

fn host(address: &str, priority: u32, trouble: &[&str]) -> Host {
    Host {
        address: address.into(),
        port: 80,
        trouble: trouble.iter().map(|&text| text.into()).collect(),
        priority,
        weight: 1,
        ..Host::default()
    }
}

fn used(hosts: &[Host]) -> Vec<(String, i64)> {
    let found = shares(&Cluster::default(), None, hosts);
    found.used.iter().map(|one| (one.shown.clone(), (one.share * 1000.0).round() as i64)).collect()
}

#[test]
fn healthy_endpoints_of_the_first_priority_get_all() {
    let all = [host("10.0.0.1", 0, &[]), host("10.0.0.2", 0, &[]), host("10.0.0.3", 1, &[])];
    assert_eq!(used(&all), [("10.0.0.1:80".into(), 500), ("10.0.0.2:80".into(), 500)]);
    let found = shares(&Cluster::default(), None, &all);
    assert!(found.idle[0].starts_with("10.0.0.3:80: priority 1"), "{:?}", found.idle);
}

#[test]
fn the_next_priority_takes_what_is_over() {
    // Half of the first is healthy: 0.5 × 1.4 of the requests stay.
    let all = [host("10.0.0.1", 0, &[]), host("10.0.0.2", 0, &["x"]), host("10.0.0.3", 1, &[])];
    assert_eq!(used(&all), [("10.0.0.1:80".into(), 700), ("10.0.0.3:80".into(), 300)]);
    let all = [host("10.0.0.1", 0, &["x"]), host("10.0.0.3", 1, &[])];
    assert_eq!(used(&all), [("10.0.0.3:80".into(), 1000)]);
}

#[test]
fn when_most_are_ill_all_are_used() {
    let all = [host("10.0.0.1", 0, &["x"]), host("10.0.0.2", 0, &["x"]), host("10.0.0.3", 0, &[])];
    let found = shares(&Cluster::default(), None, &all);
    assert!(found.panics && found.used.len() == 3, "{found:?}");
    assert_eq!(used(&[]), []);
}

#[test]
fn an_endpoint_says_whether_it_takes_mutual_tls() {
    use prost_types::{Struct, Value, value::Kind};
    use proto::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    let said = |mode: &str| Struct {
        fields: [("tlsMode".to_owned(), Value { kind: Some(Kind::StringValue(mode.into())) })].into(),
    };
    let tls = TransportSocket {
        config_type: Some(transport_socket::ConfigType::TypedConfig(proto::Any::pack(
            &UpstreamTlsContext::default(),
        ))),
        ..TransportSocket::default()
    };
    let cluster = Cluster {
        transport_socket_matches: vec![
            TransportSocketMatch {
                r#match: Some(said("istio")),
                transport_socket: Some(tls),
                ..TransportSocketMatch::default()
            },
            TransportSocketMatch {
                r#match: Some(Struct::default()),
                transport_socket: None,
                ..TransportSocketMatch::default()
            },
        ],
        ..Cluster::default()
    };
    let metadata = Metadata {
        filter_metadata: [(SOCKET_MATCH.to_owned(), said("istio"))].into(),
        ..Metadata::default()
    };
    assert!(matches!(transport(&cluster, Some(&metadata)), Socket::Tls(_)));
    assert!(matches!(transport(&cluster, None), Socket::Plain));
}
