use config::{Store, yaml};

use super::*;
use crate::snapshot::gateway::Index;

fn index(objects: &str) -> Index {
    let mut store = Store::default();
    for object in yaml::read("mesh.yaml", objects).objects {
        store.apply(Arc::new(object));
    }
    Index::build(&store)
}

/// Gateways of age `g0`, `g1`, …, each with its servers.
fn gateways(servers: &[&str]) -> Index {
    let one = |(index, servers): (usize, &&str)| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g{index}, namespace: ns, \
             creationTimestamp: '2024-01-0{}T00:00:00Z'}}\nspec: {{selector: {{istio: in}}, servers: [{servers}]}}\n---\n",
            index + 1
        )
    };
    index(&servers.iter().enumerate().map(one).collect::<String>())
}

/// A line for each group, and one for each name of routes.
fn merged(servers: &[&str]) -> Vec<String> {
    let index = gateways(servers);
    let labels = BTreeMap::from([("istio".to_owned(), "in".to_owned())]);
    let merged = Merged::new(index.of_proxy(&labels, None), |port| if port == 80 { 8080 } else { port });
    let hosts = |servers: &[Bound<'_>]| {
        let all: Vec<String> = servers.iter().flat_map(|bound| bound.server.hosts.clone()).collect();
        all.join(" ")
    };
    let groups = merged.groups.iter().map(|group| {
        let Key { port, protocol, bind } = &group.key;
        format!("{port} {protocol:?} {bind:?} {:?}: {}", group.routes, hosts(&group.servers))
    });
    let routes = merged.by_routes.iter().map(|(name, servers)| format!("{name}: {}", hosts(servers)));
    groups.chain(routes).collect()
}

fn server(port: u16, protocol: &str, host: &str, more: &str) -> String {
    format!("{{port: {{number: {port}, name: p-{host}, protocol: {protocol}}}, hosts: [{host}.com]{more}}}")
}

#[test]
fn plaintext_servers_of_a_port_share_their_routes() {
    let (a, b, c) =
        (server(80, "HTTP", "a", ""), server(80, "HTTP2", "b", ""), server(8080, "GRPC", "c", ""));
    let all = merged(&[&a, &b, &c]);
    assert_eq!(all, ["8080 Http \"\" \"http.8080\": a.com b.com c.com", "http.8080: a.com b.com c.com"]);
}

#[test]
fn what_was_there_first_keeps_the_port() {
    let (http, tcp, tls) = (
        server(1, "HTTP", "a", ""),
        server(1, "TCP", "b", ""),
        server(1, "TLS", "c", ", tls: {mode: PASSTHROUGH}"),
    );
    assert_eq!(merged(&[&http, &tcp, &tls]), ["1 Http \"\" \"http.1\": a.com", "http.1: a.com"]);
    assert_eq!(merged(&[&tcp, &http, &tcp]), ["1 Tcp \"\" \"\": b.com"]);
    // Plaintext and TLS of one port are told apart.
    let all = merged(&[&tls, &tcp]);
    assert_eq!(all, ["1 Tls \"\" \"\": c.com", "1 Tcp \"\" \"\": b.com"]);
}

#[test]
fn addresses_have_ports_of_their_own() {
    let (a, b) = (server(1, "TCP", "a", ", bind: 10.0.0.1"), server(1, "HTTP", "b", ", bind: 10.0.0.2"));
    let all = merged(&[&a, &b]);
    let want = ["1 Tcp \"10.0.0.1\" \"\": a.com", "1 Http \"10.0.0.2\" \"http.1.10.0.0.2\": b.com"];
    assert_eq!(all[..2], want);
}

#[test]
fn each_server_that_ends_tls_has_routes_of_its_own() {
    let tls = ", tls: {mode: SIMPLE, credentialName: c}";
    let (a, b) = (server(443, "HTTPS", "a", tls), server(443, "HTTPS", "b", tls));
    let passed = server(443, "TLS", "d", ", tls: {mode: PASSTHROUGH}");
    let all = merged(&[&format!("{a}, {b}"), &passed]);
    let want = [
        "443 Https \"\" \"https.443.p-a.g0.ns\": a.com b.com",
        "443 Tls \"\" \"\": d.com",
        "https.443.p-a.g0.ns: a.com",
        "https.443.p-b.g0.ns: b.com",
    ];
    assert_eq!(all, want);
}

#[test]
fn a_tls_server_with_a_host_that_is_taken_goes_whole() {
    let server = |host: &str, more: &str| {
        format!(
            "{{port: {{number: 443, name: n{}, protocol: HTTPS}}, hosts: [{host}], tls: {{mode: SIMPLE, credentialName: c}}{more}}}",
            host.len()
        )
    };
    let all =
        merged(&[&server("a.com", ""), &server("b.com, a.com", ""), &server("b.com, c.com, d.com", "")]);
    assert_eq!(all[0], "443 Https \"\" \"https.443.n5.g0.ns\": a.com b.com c.com d.com");
    // At another address it is another host.
    let all = merged(&[&server("a.com", ""), &server("a.com", ", bind: 10.0.0.1")]);
    assert_eq!(all.len(), 4);
}

#[test]
fn hosts_may_be_for_one_namespace() {
    let index = gateways(&[
        "{port: {number: 1, name: a, protocol: HTTP}, hosts: [./A.com, x/b.com, '*/c.com', d.com, '*/*']}",
    ]);
    let labels = BTreeMap::from([("istio".to_owned(), "in".to_owned())]);
    let gateway = index.of_proxy(&labels, Some("ns")).next().unwrap();
    let server = &gateway.servers[0];
    assert_eq!(server.hosts, ["ns/a.com", "x/b.com", "c.com", "d.com", "*"]);
    assert_eq!(server.hosts_for("x").collect::<Vec<_>>(), ["b.com", "c.com", "d.com", "*"]);
    assert_eq!(server.server_names(), ["*", "a.com", "b.com", "c.com", "d.com"]);
    assert!(index.of_proxy(&labels, Some("other")).next().is_none());
    assert!(index.of_proxy(&BTreeMap::new(), None).next().is_none());
}
