use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Store, yaml};
use names::TypeUrl;
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::envoy::config::route::v3::route_match::PathSpecifier;
use xds::session::Wanted;

use crate::{Proxy, Settings, Snapshot, generate};

fn service(name: &str, day: u8, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: ns, \
         creationTimestamp: '2024-01-0{day}T00:00:00Z'}}\nspec: {{hosts: [{hosts}], gateways: [edge/gw], http: [{http}]}}\n"
    )
}

/// A line for each virtual host of a Gateway without selector: its name, domains, paths, `!` where
/// plaintext is sent away.
fn hosts(name: &str, servers: &str, services: &str) -> Vec<String> {
    let gateway =
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: edge}\n";
    let objects = format!("{gateway}spec: {{servers: [{servers}]}}\n{services}");
    let mut store = Store::default();
    for object in yaml::read("mesh.yaml", &objects).objects {
        store.apply(Arc::new(object));
    }
    let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
    let id = "router~10.9.9.9~edge.edge~edge.svc.cluster.local".into();
    let proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    let wanted = Wanted::Names(BTreeSet::from([name.into()]));
    let made = generate(&snapshot, &proxy, &TypeUrl::Route, &wanted);
    let Some(made) = made.first() else { return Vec::new() };
    let routes = RouteConfiguration::decode(&made.body[..]).unwrap();
    let line = |host: &proto::envoy::config::route::v3::VirtualHost| {
        let paths = host.routes.iter().map(|route| {
            match route.r#match.as_ref().and_then(|one| one.path_specifier.as_ref()) {
                Some(PathSpecifier::Prefix(path) | PathSpecifier::Path(path)) => path.as_str(),
                _ => "?",
            }
        });
        let away = if host.require_tls == 2 { "!" } else { "" };
        format!("{} {:?} {}{away}", host.name, host.domains, paths.collect::<Vec<_>>().join(","))
    };
    routes.virtual_hosts.iter().map(line).collect()
}

fn server(port: u16, name: &str, hosts: &str, more: &str) -> String {
    format!("{{port: {{number: {port}, name: {name}, protocol: HTTP}}, hosts: [{hosts}]{more}}}")
}

const TO_A: &str = "{route: [{destination: {host: a}}]}";

#[test]
fn routes_of_all_virtual_services_of_a_host_are_put_together() {
    let at = |path: &str| {
        format!("{{match: [{{uri: {{prefix: {path}}}}}], route: [{{destination: {{host: a}}}}]}}")
    };
    let services = service("one", 1, "a.com", &format!("{}, {TO_A}", at("/one")))
        + &service("two", 2, "a.com, b.com", &at("/two"))
        + &service("three", 3, "'*.com'", &at("/three"));
    let all = hosts("http.80", &server(80, "http", "'*.com'", ""), &services);
    let want =
        ["*.com:80 [\"*.com\"] /three", "a.com:80 [\"a.com\"] /one,/two,/", "b.com:80 [\"b.com\"] /two"];
    assert_eq!(all, want);
}

#[test]
fn the_narrow_one_of_two_hosts_counts() {
    let services = service("v", 1, "'*.com', x.org", TO_A);
    let all =
        hosts("http.80", &server(80, "http", "a.com, 'ns/b.com', 'other/c.com', '*.org'", ""), &services);
    // All have the same routes, so they are one.
    assert_eq!(all, ["a.com:80 [\"a.com\", \"b.com\", \"x.org\"] /"]);
}

#[test]
fn plaintext_is_sent_away_where_a_server_says_so() {
    let servers = server(80, "http", "a.com", "")
        + ", "
        + &server(80, "redirect", "b.com, c.com", ", tls: {httpsRedirect: true}");
    let all = hosts("http.80", &servers, &service("v", 1, "a.com, b.com", TO_A));
    let want = ["a.com:80 [\"a.com\"] /", "b.com:80 [\"b.com\"] /!", "c.com:80 [\"c.com\"] !"];
    assert_eq!(all, want);
}

#[test]
fn without_routes_there_is_a_host_that_answers_404() {
    let server = server(81, "http", "'*'", "");
    assert_eq!(hosts("http.81", &server, ""), ["blackhole:81 [\"*\"] "]);
    let for_others = "{match: [{gateways: [mesh]}], route: [{destination: {host: a}}]}";
    assert_eq!(hosts("http.81", &server, &service("v", 1, "a.com", for_others)), ["blackhole:81 [\"*\"] "]);
    assert!(hosts("http.99", &server, "").is_empty());
}
