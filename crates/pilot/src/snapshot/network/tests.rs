use std::sync::Arc;

use mesh::MeshNetworks;

use super::*;
use crate::testing::store;

const BALANCED: &str = "
apiVersion: v1
kind: Service
metadata: {name: gw, namespace: edge, labels: {topology.istio.io/network: n2}}
spec: {type: LoadBalancer, clusterIP: 10.0.0.1, ports: [{name: tls, port: 15443}]}
status: {loadBalancer: {ingress: [{hostname: lb.example.com}, {ip: 192.0.2.1}]}}
";

fn nodes(selector: &str, node_port: u16) -> String {
    let node = |name: &str, labels: &str, addresses: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nstatus: {{addresses: [{addresses}]}}\n"
        )
    };
    [
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: gw, namespace: edge, labels: {{topology.istio.io/network: n2}}, \
             annotations: {{traffic.istio.io/nodeSelector: '{selector}'}}}}\n\
             spec: {{type: NodePort, clusterIP: 10.0.0.1, externalIPs: [192.0.2.9], ports: [{{name: tls, port: 15443, nodePort: {node_port}}}]}}\n"
        ),
        node("a", "ingress: 'true'", "{type: InternalIP, address: 10.1.0.1}, {type: ExternalIP, address: 192.0.2.1}, {type: ExternalIP, address: 192.0.2.8}"),
        node("b", "ingress: 'false'", "{type: ExternalIP, address: 192.0.2.2}"),
        node("c", "ingress: 'true'", "{type: InternalIP, address: 10.1.0.3}"),
    ]
    .concat()
}

fn settings(networks: &str, names: &[(&str, &[&str])]) -> Settings {
    let names = names.iter().map(|(name, addresses)| {
        ((*name).to_owned(), addresses.iter().map(|address| address.parse().unwrap()).collect())
    });
    Settings {
        networks: Arc::new(MeshNetworks::from_yaml(networks).unwrap()),
        gateway_names: Arc::new(names.collect()),
        ..Settings::new(Arc::default(), "c1")
    }
}

fn gateways(store: &Store, settings: &Settings) -> Vec<String> {
    let made = Networks::build(store, settings);
    let shown = |gateway: &Gateway| {
        format!("{} {}:{} {}", gateway.network, gateway.address, gateway.port, gateway.cluster)
    };
    made.all_gateways().map(shown).collect()
}

#[test]
fn gateways_with_host_names_have_the_addresses_that_are_known() {
    const NETWORKS: &str = "networks: {n1: {endpoints: [{fromCidr: 10.2.0.0/16}], gateways: [{address: far.example.com, port: 443}]}}";
    let store = store(BALANCED);
    let unknown = settings(NETWORKS, &[]);
    assert_eq!(
        names(&store, &unknown).into_iter().collect::<Vec<_>>(),
        ["far.example.com", "lb.example.com"]
    );
    assert_eq!(gateways(&store, &unknown), ["n2 192.0.2.1:15443 c1"]);
    let known = settings(
        NETWORKS,
        &[
            ("far.example.com", &["192.0.2.3", "2001:db8::3"]),
            ("lb.example.com", &["192.0.2.1", "192.0.2.2"]),
        ],
    );
    let want = ["n1 192.0.2.3:443 ", "n1 2001:db8::3:443 ", "n2 192.0.2.1:15443 c1", "n2 192.0.2.2:15443 c1"];
    assert_eq!(gateways(&store, &known), want);
}

#[test]
fn a_name_without_addresses_is_told() {
    const FAR: &str = "networks: {n1: {gateways: [{address: far.example.com, port: 443}, {address: 192.0.2.7, port: 443}]}}";
    let told = |settings: &Settings| {
        let problems = problems(&store(BALANCED), settings);
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect::<Vec<_>>()
    };
    let unknown = settings("", &[]);
    let all = told(&unknown);
    assert!(all[0].starts_with("status.loadBalancer.ingress[0].hostname: \"lb.example.com\""), "{all:?}");
    assert_eq!(all.len(), 1);
    assert!(told(&settings("", &[("lb.example.com", &["192.0.2.1"])])).is_empty());
    let far = told(&settings(FAR, &[("lb.example.com", &["192.0.2.1"])]));
    assert_eq!(far.len(), 1, "{far:?}");
    assert!(far[0].starts_with("networks.n1.gateways: \"far.example.com\""), "{far:?}");
    let mut off = unknown;
    off.features.resolve_gateway_names = false;
    assert!(told(&off)[0].contains("RESOLVE_HOSTNAME_GATEWAYS"));
    assert!(names(&store(BALANCED), &off).is_empty());
}

#[test]
fn nodes_stand_for_a_service_that_selects_them() {
    let settings = settings("", &[]);
    let of = |selector: &str, port| gateways(&store(&nodes(selector, port)), &settings);
    assert_eq!(of(r#"{"ingress": "true"}"#, 30443), ["n2 192.0.2.1:30443 c1"]);
    assert_eq!(of("{}", 30443), ["n2 192.0.2.1:30443 c1", "n2 192.0.2.2:30443 c1"]);
    assert_eq!(of("", 30443).len(), 2);
    assert_eq!(of(r#"{"ingress": "maybe"}"#, 30443), [""; 0]);
    // The cluster has not given it a port yet.
    assert_eq!(of("{}", 0), [""; 0]);
    // One that cannot be read selects all.
    assert_eq!(of("ingress", 30443).len(), 2);
    let told = |selector: &str| {
        let problems = problems(&store(&nodes(selector, 30443)), &settings);
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told("{}"), "");
    assert!(told("ingress").contains("cannot be read"), "{}", told("ingress"));
    assert!(told(r#"{"ingress": "maybe"}"#).contains("no node"));
}

#[test]
fn a_node_port_without_a_selector_is_reached_by_the_service_itself() {
    let text = nodes("{}", 30443).replace("traffic.istio.io/nodeSelector", "else");
    assert_eq!(gateways(&store(&text), &settings("", &[])), ["n2 192.0.2.9:15443 c1"]);
}
