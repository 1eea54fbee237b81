//! Patches of whole configurations.

use std::sync::Arc;

use config::{Severity, Store, yaml};
use names::TypeUrl;
use proto::envoy::config::core::v3::Node;
use proto::reflect;
use serde_json::{Value, json};
use xds::session::Wanted;

use crate::{Proxy, Settings, Snapshot, generate};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: up}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}], selector: {app: a}}
---
";

struct World(Snapshot, Proxy);

/// A sidecar with the patches given, each in flow style.
fn world(patches: &[&str]) -> World {
    let mut text = SERVICES.to_owned();
    let list = patches.join(", ");
    text.push_str(&format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: ef}}\nspec: {{configPatches: [{list}]}}\n"
    ));
    let contents = yaml::read("mesh.yaml", &text);
    let errors: Vec<_> =
        contents.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
    let node = json!({
        "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local",
        "metadata": {"LABELS": {"app": "a"}, "ISTIO_VERSION": "1.32.0", "SAYS": "yes", "NAMESPACE": "default"},
    });
    let node = reflect::from_json("envoy.config.core.v3.Node", node).unwrap();
    let node: Node = prost::Message::decode(node.as_slice()).unwrap();
    World(snapshot, Proxy::from_node(&node).unwrap())
}

impl World {
    fn all(&self, type_url: &TypeUrl, wanted: &Wanted) -> Vec<(String, Value)> {
        let message = type_url.as_str().trim_start_matches("type.googleapis.com/");
        let made = generate(&self.0, &self.1, type_url, wanted);
        made.iter().map(|one| (one.name.to_string(), reflect::to_json(message, &one.body).unwrap())).collect()
    }

    fn clusters(&self) -> Vec<(String, Value)> {
        self.all(&TypeUrl::Cluster, &Wanted::All)
    }

    fn cluster(&self, name: &str) -> Option<Value> {
        self.clusters().into_iter().find(|(known, _)| known == name).map(|(_, cluster)| cluster)
    }

    fn listener(&self, name: &str) -> Option<Value> {
        let all = self.all(&TypeUrl::Listener, &Wanted::All);
        all.into_iter().find(|(known, _)| known == name).map(|(_, listener)| listener)
    }

    fn routes(&self, name: &str) -> Value {
        let wanted = Wanted::Names(std::iter::once(name.into()).collect());
        self.all(&TypeUrl::Route, &wanted).remove(0).1
    }
}

const UP: &str = "outbound|80||up.default.svc.cluster.local";

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap_or("")).collect()
}

#[test]
fn clusters_are_matched_by_service_port_and_context() {
    let merge = |matching: &str| {
        world(&[&format!(
            "{{applyTo: CLUSTER, match: {{{matching}}}, patch: {{operation: MERGE, value: {{alt_stat_name: x}}}}}}"
        )])
        .clusters()
        .into_iter()
        .filter(|(_, cluster)| cluster["altStatName"] == "x")
        .map(|(name, _)| name)
        .collect::<Vec<_>>()
    };
    assert_eq!(merge("cluster: {service: up.default.svc.cluster.local, portNumber: 80}"), [UP]);
    assert_eq!(merge("context: SIDECAR_INBOUND, cluster: {portNumber: 8080}"), ["inbound|8080||"]);
    let inbound = merge("context: SIDECAR_INBOUND, cluster: {service: up.default.svc.cluster.local}");
    assert_eq!(inbound, ["inbound|8080||", "inbound|9000||"]);
    assert_eq!(merge("cluster: {name: BlackHoleCluster}"), ["BlackHoleCluster"]);
    assert!(merge("context: GATEWAY").is_empty());
    assert!(merge("proxy: {proxyVersion: '^1\\.31.*'}").is_empty());
    assert!(!merge("proxy: {proxyVersion: '^1\\.3[0-9].*', metadata: {SAYS: 'yes'}}").is_empty());
    assert!(merge("proxy: {metadata: {SAYS: 'no'}}").is_empty());
}

#[test]
fn clusters_come_once_and_go() {
    let world = world(&[
        "{applyTo: CLUSTER, patch: {operation: ADD, value: {name: added, connect_timeout: 1s}}}",
        "{applyTo: CLUSTER, patch: {operation: ADD, value: {name: added, connect_timeout: 2s}}}",
        "{applyTo: CLUSTER, match: {cluster: {name: PassthroughCluster}}, patch: {operation: REMOVE}}",
    ]);
    let all = world.clusters();
    assert_eq!(all.iter().filter(|(name, _)| name == "added").count(), 1);
    assert_eq!(world.cluster("added").unwrap()["connectTimeout"], "1s");
    assert!(world.cluster("PassthroughCluster").is_none());
}

#[test]
fn filters_stand_where_they_are_put_and_never_behind_the_last() {
    let lua =
        "{name: lua, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}";
    let place = |operation: &str, inner: &str| {
        let inner = if inner.is_empty() {
            String::new()
        } else {
            format!(
                ", match: {{listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager, subFilter: {{name: {inner}}}}}}}}}}}"
            )
        };
        let world = world(&[&format!(
            "{{applyTo: HTTP_FILTER{inner}, patch: {{operation: {operation}, value: {lua}}}}}"
        )]);
        let listener = world.listener("0.0.0.0_80").unwrap();
        let filters = &listener["filterChains"][0]["filters"][0]["typedConfig"]["httpFilters"];
        let names = names(filters);
        (names.iter().position(|name| *name == "lua"), names.len())
    };
    assert_eq!(place("INSERT_FIRST", "").0, Some(0));
    let (at, count) = place("ADD", "");
    assert_eq!(at, Some(count - 2));
    let (at, count) = place("INSERT_BEFORE", "envoy.filters.http.router");
    assert_eq!(at, Some(count - 2));
    assert_eq!(place("INSERT_AFTER", "nobody").0, None);
    assert_eq!(place("REPLACE", "envoy.filters.http.router").0.map(|at| at + 1), Some(count - 1));
}

#[test]
fn filters_of_one_port_are_merged_and_added() {
    let world = world(&[
        "{applyTo: NETWORK_FILTER, match: {context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 9000, filter: {name: envoy.filters.network.tcp_proxy}}}}, patch: {operation: INSERT_BEFORE, value: {name: cl, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: cl, max_connections: 5}}}}",
        "{applyTo: NETWORK_FILTER, match: {context: SIDECAR_INBOUND, listener: {portNumber: 8080, filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}, patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, server_name: patched}}}}",
        "{applyTo: FILTER_CHAIN, match: {context: SIDECAR_INBOUND, listener: {filterChain: {name: virtualInbound-blackhole}}}, patch: {operation: REMOVE}}",
    ]);
    let listener = world.listener("virtualInbound").unwrap();
    let chains = listener["filterChains"].as_array().unwrap();
    assert!(!names(&listener["filterChains"]).contains(&"virtualInbound-blackhole"));
    for chain in chains {
        let port = &chain["filterChainMatch"]["destinationPort"];
        let filters = names(&chain["filters"]);
        assert_eq!(filters.contains(&"cl"), *port == 9000, "{port} {filters:?}");
        let is_patched = chain["filters"][0]["typedConfig"]["serverName"] == "patched";
        assert_eq!(is_patched, *port == 8080, "{port} {filters:?}");
    }
}

#[test]
fn routes_are_changed_in_both_directions() {
    let world = world(&[
        "{applyTo: VIRTUAL_HOST, match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: 'up.default.svc.cluster.local:80'}}}, patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: a, value: b}}]}}}",
        "{applyTo: HTTP_ROUTE, match: {context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 8080, vhost: {route: {action: ROUTE}}}}, patch: {operation: MERGE, value: {route: {timeout: 3s}}}}",
        "{applyTo: HTTP_ROUTE, match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: allow_any}}}, patch: {operation: INSERT_FIRST, value: {name: first, match: {prefix: /x}, direct_response: {status: 404}}}}",
        "{applyTo: ROUTE_CONFIGURATION, match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '80'}}, patch: {operation: MERGE, value: {internal_only_headers: [x]}}}",
    ]);
    let routes = world.routes("80");
    assert_eq!(routes["internalOnlyHeaders"][0], "x");
    let hosts = routes["virtualHosts"].as_array().unwrap();
    let host = |name: &str| hosts.iter().find(|host| host["name"] == name).unwrap();
    let added = &host("up.default.svc.cluster.local:80")["responseHeadersToAdd"][0]["header"]["key"];
    assert_eq!(added, "a");
    assert_eq!(host("allow_any")["routes"][0]["name"], "first");
    let listener = world.listener("virtualInbound").unwrap();
    for chain in listener["filterChains"].as_array().unwrap() {
        let config = &chain["filters"][0]["typedConfig"]["routeConfig"];
        if config["name"] == "inbound|8080||" {
            assert_eq!(config["virtualHosts"][0]["routes"][0]["route"]["timeout"], "3s");
        }
    }
}

#[test]
fn what_does_not_fit_is_left_out_and_harms_nothing() {
    let broken = world(&[
        "{applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {name: untyped}}}",
        "{applyTo: NETWORK_FILTER, match: {listener: {filterChain: {filter: {name: envoy.filters.network.tcp_proxy}}}}, patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}}}",
        "{applyTo: CLUSTER, match: {cluster: {name: BlackHoleCluster}}, patch: {operation: MERGE, value: {alt_stat_name: x}}}",
    ]);
    let plain = world(&[]);
    assert_eq!(broken.listener("virtualInbound"), plain.listener("virtualInbound"));
    assert_eq!(broken.cluster("BlackHoleCluster").unwrap()["altStatName"], "x");
    let problems: Vec<String> = broken.0.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.iter().any(|problem| problem.contains("configPatches[0].patch.value.typed_config")),
        "{problems:?}"
    );
}
