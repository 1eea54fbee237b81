use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Store, yaml};
use prost_types::value::Kind as Value;
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::listener::v3::{FilterChain, Listener};

use super::side;
use crate::generate::Side;
use crate::proxy::{Interception, Proxy};
use crate::scope::{Scope, View};
use crate::settings::{Features, Settings};
use crate::snapshot::Snapshot;

const EXTERNAL: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: default, creationTimestamp: '2024-06-0AGET00:00:00Z'}
spec: {hosts: [NAME.example.com], ADDRESSES resolution: DNS, ports: [{number: 443, name: p, protocol: PROTOCOL}]}
";

/// ServiceEntries without an address at one port, the oldest first.
fn at_one_port(protocols: &[&str]) -> String {
    let mut text = String::new();
    for (index, protocol) in protocols.iter().enumerate() {
        let name = format!("s{index}");
        let entry = EXTERNAL.replace("NAME", &name).replace("AGE", &(index + 1).to_string());
        text += &entry.replace("ADDRESSES ", "").replace("PROTOCOL", protocol);
    }
    text
}

fn proxy() -> Proxy {
    let id = "sidecar~10.1.1.1~b.default~default.svc.cluster.local".into();
    let mut proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    proxy.labels = [("app".to_owned(), "client".to_owned())].into();
    proxy
}

fn listeners_of(objects: &str, proxy: &Proxy, features: Features) -> BTreeMap<String, Listener> {
    let contents = yaml::read("mesh.yaml", objects);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    let settings = Settings { features, ..Settings::new(Arc::default(), "Kubernetes") };
    let snapshot = Snapshot::build(&store, &settings);
    let view = View::new(&snapshot, proxy);
    let scope = Scope::new(&snapshot, proxy, &view);
    let all = [Side::Shared, Side::Own].into_iter().flat_map(|one| side(scope, one));
    all.map(|listener| (listener.name.clone(), listener)).collect()
}

fn listeners(objects: &str) -> BTreeMap<String, Listener> {
    listeners_of(objects, &proxy(), Features::default())
}

/// The last filter of each chain with the names it matches, and the default chain.
fn chains(listener: &Listener) -> (Vec<String>, Option<String>) {
    let told = |chain: &FilterChain| {
        let last =
            chain.filters.last().map_or("", |filter| filter.name.rsplit('.').next().unwrap_or_default());
        let names = chain.filter_chain_match.as_ref().map(|matcher| matcher.server_names.join(","));
        let is_general = chain.name == "PassthroughFilterChain";
        let names =
            names.filter(|names| !names.is_empty()).map(|names| format!(" {names}")).unwrap_or_default();
        if is_general { "passthrough".to_owned() } else { format!("{last}{names}") }
    };
    (listener.filter_chains.iter().map(told).collect(), listener.default_filter_chain.as_ref().map(told))
}

#[test]
fn services_of_one_port_share_a_listener_or_the_older_one_has_it() {
    for (protocols, special, general, inspectors) in [
        (&["HTTP", "HTTP"][..], &["http_connection_manager"][..], Some("passthrough"), 1),
        (&["TCP", "TCP"], &["tcp_proxy"], None, 0),
        (&["HTTP", "TCP"], &["http_connection_manager"], Some("tcp_proxy"), 1),
        (&["TCP", "HTTP"], &["http_connection_manager"], Some("tcp_proxy"), 1),
        (&["TLS", "TLS"], &["tcp_proxy s0.example.com", "tcp_proxy s1.example.com"], Some("passthrough"), 1),
        (&["TLS", "HTTP"], &["tcp_proxy s0.example.com", "http_connection_manager"], Some("passthrough"), 2),
        (&["TLS", "TCP"], &["tcp_proxy s0.example.com"], Some("tcp_proxy"), 1),
        (&["MONGO", "HTTP"], &["tcp_proxy"], None, 0),
        (&["HTTP", "MONGO"], &["http_connection_manager"], Some("passthrough"), 1),
        (&["MONGO", "MONGO"], &["tcp_proxy"], None, 0),
    ] {
        let all = listeners(&at_one_port(protocols));
        let listener = &all["0.0.0.0_443"];
        let (own, rest) = chains(listener);
        assert_eq!(
            (own, rest.as_deref()),
            (special.iter().map(|&name| name.to_owned()).collect(), general),
            "{protocols:?}"
        );
        assert_eq!(listener.listener_filters.len(), inspectors, "{protocols:?}");
    }
}

#[test]
fn each_address_and_range_of_an_entry_is_a_way_to_it() {
    let entry =
        EXTERNAL.replace("NAME", "a").replace("AGE", "1").replace("PROTOCOL", "TLS").replace("DNS", "NONE");
    let all = listeners(&entry.replace("ADDRESSES", "addresses: [10.9.0.0/16, 10.8.0.1],"));
    let range = &all["0.0.0.0_443"].filter_chains[0].filter_chain_match.as_ref().unwrap().prefix_ranges[0];
    assert_eq!((range.address_prefix.as_str(), range.prefix_len), ("10.9.0.0", Some(16)));
    // With an address of its own a service is not told by names.
    assert_eq!(chains(&all["10.8.0.1_443"]), (vec!["tcp_proxy".into()], None));
}

const HEADLESS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: head, namespace: default}
spec: {clusterIP: None, selector: {app: client}, ports: [{name: tcp, port: 5000}, {name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: head-1, namespace: default, labels: {kubernetes.io/service-name: head}}
addressType: IPv4
ports: [{name: tcp, port: 5000, protocol: TCP}, {name: http, port: 80, protocol: TCP}]
endpoints: [{addresses: [10.1.1.1], conditions: {ready: true}}, {addresses: [10.1.1.2], conditions: {ready: true}}]
";

#[test]
fn workloads_of_a_headless_service_have_listeners_except_oneself() {
    let all = listeners(HEADLESS);
    assert!(all.contains_key("10.1.1.2_5000") && !all.contains_key("10.1.1.1_5000"));
    assert!(all.contains_key("0.0.0.0_80"));
}

fn sidecar(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: a, namespace: default}}\nspec: {spec}\n"
    )
}

#[test]
fn egress_listeners_stand_where_the_sidecar_says() {
    let spec = "{egress: [
      {port: {number: 8000, protocol: HTTP_PROXY}, bind: 127.0.0.1, captureMode: NONE, hosts: ['*/*']},
      {port: {number: 0, protocol: HTTP}, bind: 'unix:///run/x', hosts: ['./*']},
      {port: {number: 15021, protocol: HTTP}, hosts: ['./*']},
      {port: {number: 443, protocol: TLS}, hosts: ['./s0.example.com']},
      {hosts: ['./*']}]}";
    let mut own = proxy();
    own.metadata
        .fields
        .insert("ENVOY_STATUS_PORT".into(), prost_types::Value { kind: Some(Value::NumberValue(15021.0)) });
    let all =
        listeners_of(&(at_one_port(&["TLS", "TLS"]) + HEADLESS + &sidecar(spec)), &own, Features::default());
    assert_eq!(all["127.0.0.1_8000"].bind_to_port, None);
    assert_eq!(all["127.0.0.1_8000"].max_connections_to_accept_per_socket_event, Some(1));
    assert!(all.contains_key("unix:///run/x_0"));
    // The proxy's own port is taken.
    assert!(!all.contains_key("0.0.0.0_15021"));
    // What a listener with a port leaves out stays out.
    assert_eq!(chains(&all["0.0.0.0_443"]).0, ["tcp_proxy s0.example.com"]);
}

#[test]
fn without_interception_listeners_stand_on_the_host_itself() {
    let proxy = Proxy { interception: Interception::None, ..proxy() };
    let all = listeners_of(HEADLESS, &proxy, Features::default());
    assert_eq!(all.keys().collect::<Vec<_>>(), ["127.0.0.1_5000", "127.0.0.1_80"]);
    let spec = "{ingress: [{port: {number: 9000, protocol: TCP}, bind: 10.1.1.1}]}";
    let all = listeners_of(&(HEADLESS.to_owned() + &sidecar(spec)), &proxy, Features::default());
    let own = &all["10.1.1.1_9000"];
    assert!(own.listener_filters.iter().all(|filter| !filter.name.ends_with("original_dst")));
    assert!(!all.contains_key("virtualInbound") && !all.contains_key("virtualOutbound"));
}

#[test]
fn tproxy_keeps_addresses() {
    let proxy = Proxy { interception: Interception::Tproxy, ..proxy() };
    let all = listeners_of(HEADLESS, &proxy, Features::default());
    assert_eq!(all["virtualInbound"].transparent, Some(true));
    assert_eq!(all["virtualOutbound"].transparent, Some(true));
    assert_eq!(all["virtualInbound"].listener_filters[1].name, "envoy.filters.listener.original_src");
}

#[test]
fn an_ingress_listener_ends_tls_where_the_mesh_does_not() {
    let objects = sidecar(
        "{ingress: [{port: {number: 9443, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}",
    );
    let disabled = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: default}\nspec: {mtls: {mode: DISABLE}}\n";
    let on = Features { tls_on_sidecar_ingress: true, ..Features::default() };
    for (objects, features, wanted) in [
        (objects.clone() + disabled, on.clone(), &["http_connection_manager"][..]),
        // Mutual TLS of the mesh goes first.
        (objects.clone(), on, &["http_connection_manager"; 2]),
        (objects + disabled, Features::default(), &["tcp_proxy"]),
    ] {
        let all = listeners_of(&objects, &proxy(), features);
        let own = all["virtualInbound"].filter_chains.iter().filter(|chain| chain.name == "10.1.1.1_9443");
        let last = own.map(|chain| chain.filters.last().unwrap().name.rsplit('.').next().unwrap().to_owned());
        assert_eq!(last.collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn objects_that_nobody_checked_harm_nobody() {
    let mut store = Store::default();
    for object in yaml::read(
        "mesh.yaml",
        &(HEADLESS.to_owned()
            + &sidecar("{egress: [{hosts: ['./*']}], ingress: [{port: {number: 80, protocol: HTTP}}]}")),
    )
    .objects
    {
        store.apply(Arc::new(object));
    }
    for object in store.clone().objects() {
        if let config::Spec::Sidecar(spec) = &object.spec {
            let mut spec = spec.clone();
            spec.egress[0].hosts = vec!["x".into(), "/".into(), "~".into()];
            spec.egress[0].port = Some(Default::default());
            spec.ingress[0].port = None;
            spec.outbound_traffic_policy = Some(Default::default());
            store.apply(Arc::new(config::Object { spec: config::Spec::Sidecar(spec), ..(**object).clone() }));
        }
    }
    let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
    let proxy = proxy();
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    assert_eq!(side(scope, Side::Shared).len(), 1);
    assert_eq!(side(scope, Side::Own).len(), 1);
}
