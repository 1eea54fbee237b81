//! What is counted, by all that objects of several levels say.

use std::sync::Arc;

use mesh::MeshConfig;
use prost_types::Struct;
use prost_types::value::Kind;
use proto::envoy::config::core::v3::Node;
use proto::istio::telemetry::v1alpha1::{Metrics, Telemetry};

use super::merge::{Merged, Side, providers};
use super::*;
use crate::generate::filter::Direction::{Gateway, Inbound, Outbound};
use crate::protocol::Protocol;
use crate::proxy::Proxy;
use crate::scope::View;
use crate::testing;
use crate::{Settings, Snapshot};

fn items(json: &str) -> Vec<Metrics> {
    let spec: Telemetry = serde_json::from_str(&format!("{{\"metrics\": {json}}}")).unwrap();
    spec.metrics
}

fn merged(json: &str, defaults: &[&str]) -> Vec<(String, Merged)> {
    let items = items(json);
    let defaults: Vec<String> = defaults.iter().map(|&name| name.into()).collect();
    providers(&items.iter().collect::<Vec<_>>(), &defaults).into_iter().collect()
}

/// `name` or `-name`, then `+tag=value` and `-tag`.
fn shown(side: &Side) -> String {
    if side.is_disabled {
        return "off".into();
    }
    let metrics = side.metrics.iter().map(|(name, metric)| {
        let tags = metric.tags.iter().map(|(tag, value)| match value {
            Some(value) => format!("+{tag}={value}"),
            None => format!("-{tag}"),
        });
        format!("{}{name}{}", if metric.is_disabled { "!" } else { "" }, tags.collect::<String>())
    });
    metrics.collect::<Vec<_>>().join(" ")
}

fn one(json: &str) -> (String, String) {
    let merged = merged(json, &["prometheus"]);
    assert_eq!(merged.len(), 1, "{json}");
    (shown(&merged[0].1.client), shown(&merged[0].1.server))
}

#[test]
fn the_last_level_that_names_providers_says_which_count() {
    let names = |json: &str, defaults: &[&str]| -> Vec<String> {
        merged(json, defaults).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("[]", &["d", "e"]), ["d", "e"]);
    assert_eq!(names("[{}]", &["d"]), ["d"]);
    assert!(names("[{}]", &[]).is_empty());
    let a = r#"{"providers": [{"name": "a"}]}"#;
    let b = r#"{"providers": [{"name": "b"}]}"#;
    assert_eq!(names(&format!("[{a}]"), &["d"]), ["a"]);
    assert_eq!(names(&format!("[{a}, {b}, {{}}]"), &["d"]), ["b"]);
    // What stands beside the providers of a level above does not count for those of one below.
    let above = r#"{"providers": [{"name": "a"}], "overrides": [{"disabled": true}]}"#;
    let both = merged(&format!("[{above}, {b}]"), &[]);
    assert_eq!(both, [("b".into(), Merged::default())]);
}

#[test]
fn changes_are_laid_over_each_other() {
    let first = r#"{"overrides": [
        {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"a": {"value": "x"}, "b": {"operation": "REMOVE"}}},
        {"match": {"metric": "REQUEST_SIZE", "mode": "SERVER"}, "disabled": true}
    ]}"#;
    let (client, server) = one(&format!("[{first}]"));
    assert_eq!(client, "requests_total+a=x-b");
    assert_eq!(server, "requests_total+a=x-b !request_bytes");
    let second = r#"{"overrides": [
        {"match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"}, "tagOverrides": {"b": {"value": "y"}}},
        {"match": {"metric": "REQUEST_SIZE"}, "disabled": false}
    ]}"#;
    let (client, server) = one(&format!("[{first}, {second}]"));
    assert_eq!(client, "requests_total+a=x+b=y request_bytes");
    assert_eq!(server, "requests_total+a=x-b request_bytes");
    let custom =
        r#"[{"overrides": [{"match": {"customMetric": "mine"}, "tagOverrides": {"a": {"value": "1"}}}]}]"#;
    assert_eq!(one(custom), ("mine+a=1".into(), "mine+a=1".into()));
    let all = r#"[{"overrides": [{"tagOverrides": {"a": {"value": "x"}}}]}]"#;
    assert_eq!(one(all).0.split(' ').count(), 10);
}

#[test]
fn all_metrics_are_switched_off_until_a_level_below_changes_one() {
    let off = r#"{"overrides": [{"match": {"metric": "ALL_METRICS"}, "disabled": true}]}"#;
    assert_eq!(one(&format!("[{off}]")), ("off".into(), "off".into()));
    let server = r#"{"overrides": [{"match": {"mode": "SERVER"}, "disabled": true}]}"#;
    assert_eq!(one(&format!("[{server}]")), (String::new(), "off".into()));
    let again =
        r#"{"overrides": [{"match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"}, "disabled": false}]}"#;
    assert_eq!(one(&format!("[{off}, {again}]")), ("requests_total".into(), "off".into()));
    // Others are not named and so are counted again, too: as Istio has it.
    assert_eq!(one(&format!("[{off}, {{}}]")), ("off".into(), "off".into()));
}

#[test]
fn the_last_reporting_interval_counts() {
    let merged = merged(r#"[{"reportingInterval": "5s"}, {}, {"reportingInterval": "7s"}, {}]"#, &["p"]);
    assert_eq!(merged[0].1.interval.unwrap().to_string(), "7s");
}

fn proxy(kind: &str, labels: &str, more: &[(&str, &str)]) -> Proxy {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let labels = labels.split_once('=').map(|(key, value)| (key.to_owned(), text(value)));
    let labels = Value { kind: Some(Kind::StructValue(Struct { fields: labels.into_iter().collect() })) };
    let mut fields: Vec<(String, Value)> = vec![("LABELS".into(), labels)];
    fields.extend(more.iter().map(|(key, value)| ((*key).to_owned(), text(value))));
    let node = Node {
        id: format!("{kind}~10.0.0.1~a.app~app.svc.cluster.local"),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..Node::default()
    };
    Proxy::from_node(&node).unwrap()
}

fn snapshot(mesh: &str, objects: &str) -> Snapshot {
    let mesh = MeshConfig::from_yaml(mesh).unwrap();
    Snapshot::build(&testing::store(objects), &Settings::new(Arc::new(mesh), "Kubernetes"))
}

/// Name and settings of the filter for requests, and whether there is one for connections.
fn filters(
    snapshot: &Snapshot,
    proxy: &Proxy,
    direction: Direction,
) -> Option<(String, serde_json::Value, bool)> {
    let view = View::new(snapshot, proxy);
    let scope = Scope::new(snapshot, proxy, &view);
    let place = Place::new(direction, Protocol::Http, 80, None);
    let has_network = network(scope, place).is_some();
    let filter = http(scope, place)?;
    let full = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
    let json = proto::reflect::to_json(full, &filter.encode_to_vec()).unwrap();
    let config = &json["typedConfig"];
    assert_eq!(
        config["@type"],
        "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
    );
    assert_eq!(
        config["dynamicModuleConfig"],
        serde_json::json!({"name": "istio_telemetry", "doNotClose": true, "metricsNamespace": "istiocustom"})
    );
    assert_eq!(config["filterName"], "istio.stats");
    Some((filter.name, config["filterConfig"]["value"].clone(), has_network))
}

const WITH: &[(&str, &str)] = &[("TELEMETRY_MODULE", "1")];
const COUNTED: &str = "defaultProviders: {metrics: [prometheus]}";

#[test]
fn only_proxies_with_the_module_get_filters() {
    let snapshot = snapshot(COUNTED, "");
    assert_eq!(filters(&snapshot, &proxy("sidecar", "", &[]), Outbound), None);
    let (name, config, has_network) = filters(&snapshot, &proxy("sidecar", "", WITH), Outbound).unwrap();
    assert_eq!((name.as_str(), has_network), ("istio.stats", true));
    assert_eq!(config, serde_json::json!({"direction": "outbound", "metadata_exchange": true}));
    let (_, config, _) = filters(&snapshot, &proxy("router", "", WITH), Gateway).unwrap();
    let wanted = serde_json::json!({
        "direction": "gateway", "metadata_exchange": true, "disable_host_header_fallback": true,
    });
    assert_eq!(config, wanted);
}

#[test]
fn where_nothing_is_counted_metadata_is_exchanged_still() {
    let snapshot = snapshot("{}", "");
    let (name, config, has_network) = filters(&snapshot, &proxy("sidecar", "", WITH), Inbound).unwrap();
    assert_eq!((name.as_str(), has_network), ("istio.metadata_exchange", false));
    assert_eq!((&config["direction"], &config["metadata_exchange"]), (&"inbound".into(), &true.into()));
    let metrics = config["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 10);
    assert!(metrics.iter().all(|metric| metric["drop"] == true && metric["name"] != ""), "{metrics:?}");
}

#[test]
fn objects_of_all_levels_change_what_is_counted() {
    const OBJECTS: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  metrics:
  - providers: [{name: Prometheus}]
    reportingInterval: 5s
    overrides:
    - {match: {metric: REQUEST_COUNT}, tagOverrides: {method: {value: request.method}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: app}
spec:
  metrics:
  - overrides:
    - {match: {metric: REQUEST_DURATION}, disabled: true}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: one, namespace: app}
spec:
  selector: {matchLabels: {app: a}}
  metrics:
  - overrides:
    - {match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {method: {operation: REMOVE}}}
";
    let snapshot = snapshot("{}", OBJECTS);
    let of = |labels: &str, direction| {
        let (_, config, _) = filters(&snapshot, &proxy("sidecar", labels, WITH), direction).unwrap();
        assert_eq!(config["tcp_reporting_duration"], "5s");
        config["metrics"].clone()
    };
    let everywhere = serde_json::json!([
        {"name": "requests_total", "dimensions": {"method": "request.method"}},
        {"name": "request_duration_milliseconds", "drop": true},
    ]);
    assert_eq!(of("app=b", Inbound), everywhere);
    assert_eq!(of("app=a", Outbound), everywhere);
    let own = serde_json::json!([
        {"name": "requests_total", "tags_to_remove": ["method"]},
        {"name": "request_duration_milliseconds", "drop": true},
    ]);
    assert_eq!(of("app=a", Inbound), own);
}

#[test]
fn the_service_of_an_inbound_chain_is_told() {
    const SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: app}
spec:
  hosts: [a.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
";
    let snapshot = snapshot(COUNTED, SERVICE);
    let proxy = proxy("sidecar", "", WITH);
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let service = scope.services().next().unwrap();
    let told = |direction| {
        let filter = network(scope, Place::new(direction, Protocol::Tcp, 80, Some(service))).unwrap();
        let json =
            proto::reflect::to_json("envoy.config.listener.v3.Filter", &filter.encode_to_vec()).unwrap();
        json["typedConfig"]["filterConfig"]["value"]["service"].clone()
    };
    let names = serde_json::json!({"host": "a.example", "name": "a.example", "namespace": "app"});
    assert_eq!(told(Inbound), names);
    assert_eq!(told(Outbound), serde_json::Value::Null);
}

#[test]
fn a_proxy_with_the_module_has_the_filter_first_and_a_patch_finds_it() {
    const PATCH: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: e, namespace: app}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND
      listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: istio.stats}}}}
    patch:
      operation: MERGE
      value:
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
          terminal_filter: false
          dynamic_module_config: {load_globally: true}
";
    let snapshot = snapshot(COUNTED, PATCH);
    let proxy = proxy("sidecar", "", WITH);
    let made = crate::generate(&snapshot, &proxy, &names::TypeUrl::Listener, &xds::session::Wanted::All);
    let mut seen = 0;
    for resource in made {
        let json = proto::reflect::to_json("envoy.config.listener.v3.Listener", &resource.body).unwrap();
        let chains = json["filterChains"].as_array().cloned().unwrap_or_default();
        for chain in chains.iter().chain(json.get("defaultFilterChain")) {
            let filters = chain["filters"].as_array().unwrap();
            for filter in filters {
                let Some(own) = filter["typedConfig"]["httpFilters"].as_array() else { continue };
                assert_eq!(own[0]["name"], "istio.stats");
                let module = &own[0]["typedConfig"]["dynamicModuleConfig"];
                let is_inbound = json["trafficDirection"] == "INBOUND";
                assert_eq!(module.get("loadGlobally").is_some(), !is_inbound, "{chain}");
                seen += 1;
            }
            let last = filters.last().unwrap();
            if last["name"] == "envoy.filters.network.tcp_proxy" {
                assert_eq!(filters[filters.len() - 2]["name"], "istio.stats");
                seen += 1;
            }
        }
    }
    assert!(seen > 4, "{seen}");
}
