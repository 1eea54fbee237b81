use std::sync::Arc;

use config::{Store, yaml};
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::substitution_format_string::Format;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use proto::envoy::config::route::v3::{Route, RouteConfiguration};
use proto::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::Value;
use proto::envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterState;
use xds::session::Wanted;

use super::outbound;
use crate::proxy::Proxy;
use crate::scope::{Scope, View};
use crate::snapshot::Snapshot;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: other}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: x}
spec: {clusterIP: 10.0.0.3, ports: [{name: web, port: 8080}]}
";

fn snapshot(objects: &str) -> Snapshot {
    let contents = yaml::read("mesh.yaml", &format!("{SERVICES}---{objects}"));
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    contents.objects.into_iter().for_each(|object| {
        store.apply(Arc::new(object));
    });
    Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"))
}

/// The routes of that name for a sidecar of namespace `x`.
fn named(objects: &str, name: &str) -> RouteConfiguration {
    let snapshot = snapshot(objects);
    let id = "sidecar~10.1.1.1~p.x~x.svc.cluster.local".into();
    let proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    let view = View::new(&snapshot, &proxy);
    let wanted = Wanted::Names(std::iter::once(name.into()).collect());
    outbound(Scope::new(&snapshot, &proxy, &view), &wanted)[0].message()
}

/// A VirtualService with these hosts and rules.
fn rules(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: x}}
spec: {{hosts: [{hosts}], http: [{http}]}}
---"
    )
}

fn target(route: &Route) -> String {
    match &route.action {
        Some(Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => name.clone(),
            Some(ClusterSpecifier::WeightedClusters(all)) => {
                let each = |one: &proto::envoy::config::route::v3::weighted_cluster::ClusterWeight| {
                    format!("{} {}", one.name, one.weight.unwrap_or_default())
                };
                all.clusters.iter().map(each).collect::<Vec<_>>().join(", ")
            }
            other => format!("{other:?}"),
        },
        Some(Action::Redirect(_)) => "redirect".into(),
        Some(Action::DirectResponse(response)) => response.status.to_string(),
        other => format!("{other:?}"),
    }
}

/// Each virtual host as `NAME: TARGETS`.
fn hosts(made: &RouteConfiguration) -> Vec<String> {
    let host = |host: &proto::envoy::config::route::v3::VirtualHost| {
        let targets: Vec<String> = host.routes.iter().map(target).collect();
        format!("{}: {}", host.name, targets.join("; "))
    };
    made.virtual_hosts.iter().map(host).collect()
}

/// The routes of the first virtual host of port 80, which is that of `a`.
fn of_a(http: &str) -> Vec<Route> {
    named(&rules("r", "a", http), "80").virtual_hosts.remove(0).routes
}

#[test]
fn names_of_a_service_depend_on_the_client() {
    let made = named("", "80");
    let domains: Vec<Vec<&str>> =
        made.virtual_hosts.iter().map(|host| host.domains.iter().map(String::as_str).collect()).collect();
    let (a, b) = ("a.x.svc.cluster.local", "b.other.svc.cluster.local");
    assert_eq!(domains[0], [a, "a.x.svc.cluster.local.", "a", "a.x.svc", "a.x", "10.0.0.1"]);
    assert_eq!(domains[1], [b, "b.other.svc.cluster.local.", "b.other", "b.other.svc", "10.0.0.2"]);
    assert_eq!(domains[2], ["*"]);
}

#[test]
fn a_port_of_an_unknown_protocol_has_routes_of_its_own() {
    let made = named("", "c.x.svc.cluster.local:8080");
    assert_eq!(hosts(&made), ["c.x.svc.cluster.local:8080: outbound|8080||c.x.svc.cluster.local"]);
    assert_eq!(made.virtual_hosts[0].domains, ["*"]);
    assert!(named("", "d.x.svc.cluster.local:8080").virtual_hosts.is_empty());
    assert!(named("", "what").virtual_hosts.is_empty());
}

#[test]
fn an_exact_host_beats_a_wildcard_and_the_oldest_its_like() {
    let all = [
        rules("any", "'*.svc.cluster.local'", "{directResponse: {status: 201}}"),
        rules("first", "a", "{directResponse: {status: 202}}"),
        rules("second", "a", "{directResponse: {status: 203}}"),
    ];
    let want = ["a.x.svc.cluster.local:80: 202", "b.other.svc.cluster.local:80: 201"];
    assert_eq!(hosts(&named(&all.concat(), "80"))[..2], want);
}

#[test]
fn one_that_does_not_apply_leaves_its_host_to_the_next() {
    let hidden = "{match: [{sourceNamespace: other}], directResponse: {status: 201}}";
    let all = [rules("first", "a", hidden), rules("second", "a", "{directResponse: {status: 202}}")];
    assert_eq!(hosts(&named(&all.concat(), "80"))[0], "a.x.svc.cluster.local:80: 202");
    let alone = hosts(&named(&all[0], "80"));
    assert_eq!(alone[0], "a.x.svc.cluster.local:80: outbound|80||a.x.svc.cluster.local");
}

#[test]
fn hosts_that_are_no_services_are_on_port_80() {
    let all = rules("r", "only.example", "{route: [{destination: {host: a}}]}");
    assert!(
        hosts(&named(&all, "80")).contains(&"only.example:80: outbound|80||a.x.svc.cluster.local".into())
    );
    assert_eq!(hosts(&named(&all, "8080")).len(), 2);
    // One that shares its rules with a service of the port is there too.
    let all = rules("r", "only.example, c", "{route: [{destination: {host: c}}]}");
    let want = "only.example:8080: outbound|8080||c.x.svc.cluster.local";
    assert!(hosts(&named(&all, "8080")).contains(&want.into()));
}

#[test]
fn another_name_of_a_service_leads_to_it() {
    let alias = "
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: x}
spec: {type: ExternalName, externalName: a.x.svc.cluster.local}
---";
    let own = rules("r", "alias", "{match: [{uri: {prefix: /}}], route: [{destination: {host: alias}}]}");
    let made = named(&(alias.to_owned() + &own), "80");
    let host = &made.virtual_hosts[1];
    assert_eq!(host.domains[..3], ["alias.x.svc.cluster.local", "alias.x.svc.cluster.local.", "alias"]);
    assert_eq!(target(&host.routes[0]), "outbound|80||a.x.svc.cluster.local");
    assert_eq!(made.virtual_hosts[0].domains.last().map(String::as_str), Some("10.0.0.1"));
}

#[test]
fn nothing_comes_after_a_route_that_takes_everything() {
    let routes = of_a(
        "{match: [{uri: {prefix: /a}}, {uri: {prefix: /}}, {uri: {prefix: /b}}], directResponse: {status: 201}},
         {directResponse: {status: 202}}",
    );
    assert_eq!(routes.iter().map(target).collect::<Vec<_>>(), ["201", "201"]);
}

#[test]
fn several_destinations_share_by_weight() {
    let routes = of_a(
        "{route: [{destination: {host: a}, weight: 20}, {destination: {host: b.other.svc.cluster.local}, weight: 80},
                  {destination: {host: c}}]}",
    );
    let want = "outbound|80||a.x.svc.cluster.local 20, outbound|80||b.other.svc.cluster.local 80";
    assert_eq!(target(&routes[0]), want);
    assert_eq!(routes[0].decorator.as_ref().unwrap().operation, "r:80/*");
}

#[test]
fn the_host_of_a_request_is_set_in_four_places() {
    let host = |http: &str| {
        let routes = of_a(http);
        let Some(Action::Route(action)) = &routes[0].action else { unreachable!() };
        match &action.host_rewrite_specifier {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => host.clone(),
            _ => String::new(),
        }
    };
    let on_target = "route: [{destination: {host: a}, headers: {request: {set: {Host: target}}}}]";
    assert_eq!(host(&format!("{{{on_target}}}")), "target");
    let on_rule = "headers: {request: {set: {':authority': rule}}}";
    assert_eq!(host(&format!("{{{on_rule}, {on_target}}}")), "rule");
    assert_eq!(host(&format!("{{rewrite: {{authority: rewrite}}, {on_target}}}")), "rewrite");
}

#[test]
fn redirects_name_a_port_only_where_it_matters() {
    let port = |redirect: &str| {
        let routes = of_a(&format!("{{redirect: {redirect}}}"));
        let Some(Action::Redirect(redirect)) = &routes[0].action else { unreachable!() };
        redirect.port_redirect
    };
    assert_eq!(port("{uri: /x}"), 0);
    assert_eq!(port("{uri: /x, port: 8080}"), 8080);
    assert_eq!(port("{uri: /x, derivePort: FROM_REQUEST_PORT}"), 0);
    assert_eq!(port("{uri: /x, scheme: https, derivePort: FROM_REQUEST_PORT}"), 80);
    assert_eq!(port("{uri: /x, scheme: https, port: 443}"), 0);
}

#[test]
fn requests_are_announced_to_servers_of_the_mesh_only() {
    let announced = |objects: &str| -> Vec<bool> {
        let route = |route: &Route| {
            let on_target = match &route.action {
                Some(Action::Route(action)) => match &action.cluster_specifier {
                    Some(ClusterSpecifier::WeightedClusters(all)) => {
                        all.clusters.iter().any(|one| !one.typed_per_filter_config.is_empty())
                    }
                    _ => false,
                },
                _ => false,
            };
            assert!(!on_target || route.typed_per_filter_config.is_empty());
            on_target || !route.typed_per_filter_config.is_empty()
        };
        let made = named(objects, "80");
        made.virtual_hosts.iter().flat_map(|host| host.routes.iter().map(route)).collect()
    };
    let tls = |mode: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: b, namespace: x}}
spec: {{host: b.other.svc.cluster.local, trafficPolicy: {{tls: {{mode: {mode}}}}}}}
---"
        )
    };
    assert_eq!(announced(""), [true, true, false]);
    assert_eq!(announced(&tls("SIMPLE")), [true, false, false]);
    assert_eq!(announced(&tls("ISTIO_MUTUAL")), [true, true, false]);
    let both = "{route: [{destination: {host: a}, weight: 1}, {destination: {host: b.other.svc.cluster.local}, weight: 1}]}";
    assert_eq!(announced(&rules("r", "a", both)), [true, true, false]);
    assert_eq!(announced(&(rules("r", "a", both) + &tls("SIMPLE"))), [true, false, false]);
}

#[test]
fn what_is_offered_ends_with_what_the_connection_speaks() {
    const GRPC: &str = "
apiVersion: v1
kind: Service
metadata: {name: g, namespace: x}
spec: {clusterIP: 10.0.0.4, ports: [{name: grpc, port: 8081}]}
---
";
    let offered = |port: &str, policy: &str| -> String {
        let rule = |host: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                 metadata: {{name: {host}, namespace: x}}\nspec: {{host: {host}, trafficPolicy: {policy}}}\n---\n"
            )
        };
        let objects = if policy.is_empty() { String::new() } else { rule("a") + &rule("g") };
        let made = named(&format!("{GRPC}{objects}"), port);
        let route = &made.virtual_hosts[0].routes[0];
        let settings = &route.typed_per_filter_config["envoy.filters.http.set_filter_state"];
        let config: SetFilterState = settings.unpack().unwrap();
        let Some(Value::FormatString(value)) = &config.on_request_headers[0].value else { panic!() };
        let Some(Format::TextFormatSource(source)) = &value.format else { panic!() };
        match &source.specifier {
            Some(Specifier::InlineString(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    let client = "{connectionPool: {http: {useClientProtocol: true}}}";
    let upgrade = "{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}";
    assert_eq!(offered("80", ""), "istio-http/1.1,istio,http/1.1");
    assert_eq!(offered("8081", ""), "istio-h2,istio,h2");
    assert_eq!(offered("80", upgrade), "istio-h2,istio,h2");
    // It may be either: a server must not agree to one that the client does not speak.
    assert_eq!(offered("80", client), "istio-http/1.1,istio");
    assert_eq!(offered("8081", client), "istio-http/1.1,istio");
}
