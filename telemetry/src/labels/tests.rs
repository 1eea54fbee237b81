use super::{Labels, NO_SERVICE, Parties, TAGS, is_of_client, namespace, overflow, service, text};
use crate::peer::Workload;
use crate::settings::{Direction, Service};

fn workload(prefix: &str) -> Workload {
    let named = |what: &str| format!("{prefix}-{what}");
    Workload {
        namespace: named("ns"),
        name: named("workload"),
        cluster: named("cluster"),
        canonical_name: named("canonical"),
        canonical_revision: named("revision"),
        app: named("app"),
        version: named("version"),
        ..Workload::default()
    }
}

fn get(labels: &Labels<'_>, name: &str) -> String {
    labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.clone().into_owned()).unwrap()
}

#[test]
fn the_destination_names_itself_and_its_client() {
    let (own, peer) = (workload("own"), workload("peer"));
    let service = Service { host: "b.x.svc.cluster.local".into(), name: "b".into() };
    let parties = Parties {
        direction: Direction::Inbound,
        own: &own,
        peer: Some(&peer),
        peer_principal: "spiffe://d/ns/real/sa/a",
        own_principal: "spiffe://d/ns/own-ns/sa/b",
        service: &service,
    };
    let expected = [
        ("reporter", "destination"),
        ("source_workload", "peer-workload"),
        ("source_canonical_service", "peer-canonical"),
        ("source_canonical_revision", "peer-revision"),
        ("source_workload_namespace", "real"),
        ("source_principal", "spiffe://d/ns/real/sa/a"),
        ("source_app", "peer-app"),
        ("source_version", "peer-version"),
        ("source_cluster", "peer-cluster"),
        ("destination_workload", "own-workload"),
        ("destination_workload_namespace", "own-ns"),
        ("destination_principal", "spiffe://d/ns/own-ns/sa/b"),
        ("destination_app", "own-app"),
        ("destination_version", "own-version"),
        ("destination_service", "b.x.svc.cluster.local"),
        ("destination_canonical_service", "own-canonical"),
        ("destination_canonical_revision", "own-revision"),
        ("destination_service_name", "b"),
        ("destination_service_namespace", "own-ns"),
        ("destination_cluster", "own-cluster"),
    ];
    assert_eq!(parties.labels(), expected.map(|(name, value)| (name, value.into())));
    assert_eq!(parties.security(), "mutual_tls");
    assert!(expected.iter().all(|(name, _)| TAGS.contains(name)));
}

#[test]
fn what_is_not_known_is_unknown_and_latest() {
    let own = workload("own");
    let mut parties = Parties {
        direction: Direction::Outbound,
        own: &own,
        peer: None,
        peer_principal: "",
        own_principal: "",
        service: NO_SERVICE,
    };
    let labels = parties.labels();
    assert_eq!(get(&labels, "reporter"), "source");
    assert_eq!(get(&labels, "source_workload"), "own-workload");
    assert_eq!(get(&labels, "destination_workload"), "unknown");
    assert_eq!(get(&labels, "destination_canonical_revision"), "latest");
    assert_eq!(get(&labels, "destination_service"), "unknown");
    assert_eq!(get(&labels, "destination_service_namespace"), "unknown");
    assert_eq!(parties.security(), "unknown");
    parties.direction = Direction::Inbound;
    assert_eq!(get(&parties.labels(), "destination_service"), "own-canonical");
    assert_eq!(parties.security(), "none");
    parties.direction = Direction::Gateway;
    assert_eq!(get(&parties.labels(), "reporter"), "source");
}

#[test]
fn the_service_is_that_of_the_cluster() {
    let find = |route, cluster, client| {
        let found = service(route, cluster, None, client);
        (found.host, found.name)
    };
    let pair = |host: &str, name: &str| (host.to_owned(), name.to_owned());
    let host = "b.x.svc.cluster.local";
    assert_eq!(find("default", "outbound|80||b.x.svc.cluster.local", "c"), pair(host, "b"));
    assert_eq!(find("", "outbound|80|v1|b.x.svc.cluster.local", ""), pair(host, "b"));
    assert_eq!(find("", "outbound_.80_.v1_.b.x.svc.cluster.local", ""), pair(host, "b"));
    assert_eq!(find("", "outbound_.80_._.b.x.svc.cluster.local", ""), pair(host, "b"));
    assert_eq!(find("", "outbound|443||www.example.com", ""), pair("www.example.com", "www.example.com"));
    assert_eq!(find("allow_any", "PassthroughCluster", "c:80"), pair("c:80", "PassthroughCluster"));
    assert_eq!(find("block_all", "BlackHoleCluster", ""), pair("", "BlackHoleCluster"));
    assert_eq!(find("", "InboundPassthroughCluster", ""), pair("", "InboundPassthroughCluster"));
    assert_eq!(find("", "inbound|80||", ""), pair("", ""));
    assert_eq!(find("", "else", "c"), pair("c", "c"), "the host that the client named");
    let own = Service { host: host.into(), name: String::new() };
    assert_eq!(service("", "inbound|80||", Some(&own), "").name, "b");
    assert_eq!(service("", "InboundPassthroughCluster", Some(&own), "").name, "InboundPassthroughCluster");
}

#[test]
fn what_the_client_named_matters_only_where_nothing_else_tells_the_service() {
    let configured = Service { host: "c.x.svc.cluster.local".into(), name: "c".into() };
    let clusters =
        ["outbound|80||a.x.svc.cluster.local", "outbound|80||", "inbound|80||", "PassthroughCluster"];
    for (route, cluster) in ["default", "allow_any"].into_iter().flat_map(|r| clusters.map(|c| (r, c))) {
        for configured in [None, Some(&configured)] {
            let differs =
                service(route, cluster, configured, "one") != service(route, cluster, configured, "other");
            assert_eq!(is_of_client(route, cluster, configured), differs, "{route} {cluster} {configured:?}");
        }
    }
}

#[test]
fn a_principal_tells_its_namespace() {
    assert_eq!(namespace("spiffe://cluster.local/ns/x/sa/a"), Some("x"));
    assert_eq!(namespace("spiffe://cluster.local/ns/x"), Some("x"));
    assert_eq!(namespace("spiffe://cluster.local/x"), None);
    assert_eq!(namespace(""), None);
}

#[test]
fn the_text_is_valid_whatever_the_values_are() {
    let labels: Labels<'_> = vec![
        ("a", "x\"y\\z\n".into()),
        ("b-c.d", "1".into()),
        ("9", "2".into()),
        ("a", "again".into()),
        ("reporter", "source".into()),
    ];
    assert_eq!(text(&labels), r#"b_c_d="1",_9="2",a="again",reporter="source""#);
    let single: Labels<'_> = vec![("a", "x\"y\\z\n".into())];
    assert_eq!(text(&single), r#"a="x\"y\\z\n""#);
    assert!(overflow(&labels).ends_with(r#"a="unknown",reporter="source""#));
}

#[test]
fn a_value_that_is_too_long_is_cut() {
    let long: Labels<'_> = vec![("a", "é".repeat(2000).into())];
    assert_eq!(text(&long), format!("a=\"{}\"", "é".repeat(512)));
}
