use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Store, yaml};
use mesh::MeshConfig;
use names::TypeUrl;
use prost::Message as _;
use prost_types::value::Kind as Value;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::{Node, address};
use proto::envoy::config::listener::v3::{Filter, Listener, filter};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use xds::session::Wanted;

use crate::{Proxy, Settings, Snapshot, generate};

/// Objects with a Gateway of these servers and VirtualServices bound to it.
fn snapshot(servers: &str, routes: &str, mesh: &str) -> Snapshot {
    let head = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: default}
spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 1000}, {name: udp, port: 53, protocol: UDP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}
";
    let objects = format!(
        "{head}---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: edge}}\n\
         spec: {{selector: {{istio: edge}}, servers: [{servers}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs, namespace: default}}\n\
         spec: {{hosts: ['*.com'], gateways: [edge/gw], {routes}}}\n"
    );
    let mut store = Store::default();
    for object in yaml::read("mesh.yaml", &objects).objects {
        store.apply(Arc::new(object));
    }
    Snapshot::build(&store, &Settings::new(Arc::new(MeshConfig::from_yaml(mesh).unwrap()), "Kubernetes"))
}

fn proxy(metadata: &[(&str, &str)]) -> Proxy {
    let text = |text: &str| prost_types::Value { kind: Some(Value::StringValue(text.into())) };
    let labels = prost_types::Struct { fields: BTreeMap::from([("istio".to_owned(), text("edge"))]) };
    let labels = prost_types::Value { kind: Some(Value::StructValue(labels)) };
    let mut fields = BTreeMap::from([("LABELS".to_owned(), labels)]);
    fields.extend(metadata.iter().map(|(name, value)| ((*name).to_owned(), text(value))));
    Proxy::from_node(&Node {
        id: "router~10.9.9.9~edge.edge~edge.svc.cluster.local".into(),
        metadata: Some(prost_types::Struct { fields }),
        ..Node::default()
    })
    .unwrap()
}

fn listeners(snapshot: &Snapshot, proxy: &Proxy) -> Vec<Listener> {
    let made = generate(snapshot, proxy, &TypeUrl::Listener, &Wanted::All);
    made.iter().map(|made| Listener::decode(&made.body[..]).unwrap()).collect()
}

fn names(listeners: &[Listener]) -> Vec<&str> {
    listeners.iter().map(|listener| listener.name.as_str()).collect()
}

fn config<M: prost::Message + Default>(filter: &Filter) -> M {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) => M::decode(&any.value[..]).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Names of the filters of each chain.
fn filters(listener: &Listener) -> Vec<Vec<&str>> {
    let of = |filters: &'_ [Filter]| filters.len();
    listener
        .filter_chains
        .iter()
        .map(|chain| {
            assert!(of(&chain.filters) > 0);
            chain.filters.iter().map(|filter| filter.name.rsplit('.').next().unwrap_or_default()).collect()
        })
        .collect()
}

fn server(port: u16, protocol: &str, more: &str) -> String {
    format!("{{port: {{number: {port}, name: p{port}, protocol: {protocol}}}, hosts: ['*.com']{more}}}")
}

const TCP: &str = "tcp: [{route: [{destination: {host: a}}]}]";

#[test]
fn bytes_go_to_one_destination_or_are_shared_out() {
    let shared = "tcp: [{match: [{port: 9}], route: [{destination: {host: a}}]}, {route: [{destination: {host: a, \
                  subset: v1}, weight: 1}, {destination: {host: b, port: {number: 1000}}, weight: 3}]}]";
    let snapshot = snapshot(&format!("{}, {}", server(9, "TCP", ""), server(10, "MONGO", "")), shared, "");
    let listeners = listeners(&snapshot, &proxy(&[]));
    assert_eq!(names(&listeners), ["0.0.0.0_10", "0.0.0.0_9"]);
    let proxies: Vec<TcpProxy> =
        listeners.iter().map(|one| config(one.filter_chains[0].filters.last().unwrap())).collect();
    let Some(ClusterSpecifier::WeightedClusters(all)) = &proxies[0].cluster_specifier else { panic!() };
    let shares: Vec<(&str, u32)> = all.clusters.iter().map(|one| (one.name.as_str(), one.weight)).collect();
    assert_eq!(
        shares,
        [
            ("outbound|80|v1|a.default.svc.cluster.local", 1),
            ("outbound|1000||b.default.svc.cluster.local", 3)
        ]
    );
    assert_eq!(proxies[0].stat_prefix, "vs.default");
    assert_eq!(filters(&listeners[0])[0], ["mongo_proxy", "tcp_proxy"]);
    assert_eq!(proxies[1].stat_prefix, "outbound|80||a.default.svc.cluster.local");
    assert!(listeners[0].listener_filters.is_empty());
}

#[test]
fn a_server_without_routes_has_no_listener() {
    let snapshot = snapshot(&server(9, "TCP", ""), "http: [{route: [{destination: {host: a}}]}]", "");
    assert!(listeners(&snapshot, &proxy(&[])).is_empty());
}

#[test]
fn connections_of_the_mesh_are_passed_on_by_the_cluster_they_ask_for() {
    let tls = ", tls: {mode: AUTO_PASSTHROUGH}";
    let local = format!("{{port: {{number: 15443, name: tls, protocol: TLS}}, hosts: ['*.local']{tls}}}");
    let snapshot = snapshot(&local, TCP, "");
    let proxy = proxy(&[]);
    let listeners = listeners(&snapshot, &proxy);
    let mut asked: Vec<(&str, usize)> = listeners[0]
        .filter_chains
        .iter()
        .map(|chain| chain.filter_chain_match.as_ref().unwrap())
        .map(|one| (one.server_names[0].as_str(), one.application_protocols.len()))
        .collect();
    asked.sort_unstable();
    let expected = [
        "outbound_.1000_._.b.default.svc.cluster.local",
        "outbound_.80_._.a.default.svc.cluster.local",
        "outbound_.80_.v1_.a.default.svc.cluster.local",
    ];
    assert_eq!(asked, expected.map(|name| (name, 5)));
    // Each has a cluster of that name, which leaves TLS alone.
    let clusters = generate(&snapshot, &proxy, &TypeUrl::Cluster, &Wanted::All);
    for name in expected {
        let found = clusters.iter().find(|cluster| &*cluster.name == name).expect(name);
        let cluster = Cluster::decode(&found.body[..]).unwrap();
        assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty(), "{name}");
    }
    let other = self::snapshot(&server(9, "TCP", ""), TCP, "");
    let clusters = generate(&other, &proxy, &TypeUrl::Cluster, &Wanted::All);
    assert!(!clusters.iter().any(|cluster| cluster.name.starts_with("outbound_.")));
}

#[test]
fn what_stands_in_front_is_believed_as_far_as_the_mesh_says() {
    let http = "http: [{route: [{destination: {host: a}}]}]";
    let mesh = "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: FORWARD_ONLY, \
                proxyProtocol: {}}}";
    for (mesh, hops, forward, described, inspectors) in [("", 0, 3, true, 0), (mesh, 2, 1, false, 1)] {
        let snapshot = snapshot(&server(80, "HTTP", ""), http, mesh);
        let listeners = listeners(&snapshot, &proxy(&[]));
        let manager: HttpConnectionManager = config(&listeners[0].filter_chains[0].filters[0]);
        assert_eq!(manager.use_remote_address, Some(true));
        assert_eq!((manager.xff_num_trusted_hops, manager.forward_client_cert_details), (hops, forward));
        assert_eq!(manager.set_current_client_cert_details.is_some(), described);
        assert_eq!(listeners[0].listener_filters.len(), inspectors);
    }
}

#[test]
fn a_port_that_cannot_be_opened_is_left_out() {
    let servers = [80, 8080, 15021, 15090].map(|port| server(port, "TCP", "")).join(", ");
    let snapshot = snapshot(&servers, TCP, "");
    let ports = [("ENVOY_STATUS_PORT", "15021"), ("ENVOY_PROMETHEUS_PORT", "15090")];
    let open = |more: &[(&str, &str)]| {
        let mut proxy = proxy(more);
        for (name, number) in ports {
            let number = Some(Value::NumberValue(number.parse().unwrap()));
            proxy.metadata.fields.insert(name.into(), prost_types::Value { kind: number });
        }
        let listeners = listeners(&snapshot, &proxy);
        names(&listeners).join(" ")
    };
    assert_eq!(open(&[]), "0.0.0.0_80 0.0.0.0_8080");
    assert_eq!(open(&[("UNPRIVILEGED_POD", "true")]), "0.0.0.0_8080");
}

#[test]
fn servers_may_be_bound_to_an_address_or_a_socket() {
    let socket = "{port: {name: s, protocol: TCP}, hosts: ['*.com'], bind: 'unix:///run/gw'}";
    let servers = format!("{socket}, {}", server(9, "TCP", ", bind: '10.1.1.1'"));
    let snapshot = snapshot(&servers, TCP, "");
    let listeners = listeners(&snapshot, &proxy(&[]));
    assert_eq!(names(&listeners), ["10.1.1.1_9", "unix:///run/gw_0"]);
    let address = listeners[1].address.as_ref().and_then(|address| address.address.as_ref());
    let Some(address::Address::Pipe(pipe)) = address else { panic!("{address:?}") };
    assert_eq!(pipe.path, "/run/gw");
}

#[test]
fn a_name_of_tls_leads_one_way() {
    let twice = "tls: [{match: [{sniHosts: [A.com, b.com]}], route: [{destination: {host: a}}]}, \
                 {match: [{sniHosts: [b.com]}, {sniHosts: [c.com], port: 1}, {sniHosts: [d.com], gateways: [gw]}], \
                 route: [{destination: {host: b, port: {number: 1000}}}]}]";
    let snapshot = snapshot(&server(443, "TLS", ", tls: {mode: PASSTHROUGH}"), twice, "");
    let listeners = listeners(&snapshot, &proxy(&[]));
    let names: Vec<_> = listeners[0]
        .filter_chains
        .iter()
        .map(|chain| chain.filter_chain_match.as_ref().unwrap().server_names.join(" "))
        .collect();
    assert_eq!(names, ["a.com b.com"]);
    assert_eq!(listeners[0].listener_filters[0].name, "envoy.filters.listener.tls_inspector");
}
