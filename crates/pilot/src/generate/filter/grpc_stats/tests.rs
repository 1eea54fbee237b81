//! Where the filter stands.

use std::sync::Arc;

use mesh::MeshConfig;
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use serde_json::{Value, json};

use super::*;
use crate::proxy::Proxy;
use crate::scope::View;
use crate::testing;
use crate::{Settings, Snapshot};

/// A proxy with the module that says `more` of itself.
fn proxy(more: &Value) -> Proxy {
    let mut metadata = json!({"TELEMETRY_MODULE": "1"});
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let node = json!({"id": "sidecar~10.0.0.1~a-1.app~app.svc.cluster.local", "metadata": metadata});
    let bytes = proto::reflect::from_json("envoy.config.core.v3.Node", node).unwrap();
    Proxy::from_node(&Node::decode(&*bytes).unwrap()).unwrap()
}

fn stands(mesh: &str, objects: &str, more: &Value) -> bool {
    let mesh = MeshConfig::from_yaml(mesh).unwrap();
    let snapshot = Snapshot::build(&testing::store(objects), &Settings::new(Arc::new(mesh), "Kubernetes"));
    let proxy = proxy(more);
    let view = View::new(&snapshot, &proxy);
    http(Scope::new(&snapshot, &proxy, &view), false).is_some()
}

#[test]
fn beside_the_module_it_is_left_out() {
    assert!(stands("{}", "", &json!({"TELEMETRY_MODULE": ""})));
    assert!(!stands("{}", "", &json!({})));
}

#[test]
fn where_users_run_code_of_their_own_it_stays() {
    let snapshot = testing::snapshot("");
    let proxy = proxy(&json!({}));
    let view = View::new(&snapshot, &proxy);
    assert!(http(Scope::new(&snapshot, &proxy, &view), true).is_some());
}

#[test]
fn proxies_with_statistics_of_their_own_keep_it() {
    let annotated = |name: &str, value: &str| json!({"ANNOTATIONS": {name: value}});
    for keeps in [
        annotated("sidecar.istio.io/statsInclusionPrefixes", "cluster"),
        annotated("sidecar.istio.io/statsInclusionSuffixes", "grpc.success"),
        annotated("sidecar.istio.io/statsInclusionRegexps", ".*"),
        annotated("sidecar.istio.io/bootstrapOverride", "own"),
        json!({"PROXY_CONFIG": {"proxyStatsMatcher": {"inclusionPrefixes": ["cluster.outbound"]}}}),
    ] {
        assert!(stands("{}", "", &keeps), "{keeps}");
    }
    for other in [
        annotated("sidecar.istio.io/statsInclusionRegexps", ""),
        annotated("sidecar.istio.io/extraStatTags", "x"),
        json!({"PROXY_CONFIG": {"proxyStatsMatcher": {}, "concurrency": 2}}),
    ] {
        assert!(!stands("{}", "", &other), "{other}");
    }
}

#[test]
fn a_configuration_that_names_it_keeps_it() {
    const PATCH: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: a, namespace: app}
spec:
  workloadSelector: {labels: SELECTOR}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: NAME}
    patch: {operation: REMOVE}
";
    let patch =
        |selector, name| stands("{}", &PATCH.replace("SELECTOR", selector).replace("NAME", name), &json!({}));
    assert!(patch("{}", NAME));
    assert!(!patch("{}", "envoy.filters.http.cors"));
    assert!(!patch("{app: b}", NAME), "it is for others");

    const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a, namespace: app}
spec:
  accessLogging:
  - filter: {expression: \"'EXPRESSION' in filter_state\"}
";
    let telemetry = |expression| stands("{}", &TELEMETRY.replace("EXPRESSION", expression), &json!({}));
    assert!(telemetry(NAME));
    assert!(!telemetry("envoy.string"));

    let log = |format: &str| stands(&format!("accessLogFormat: '{format}'"), "", &json!({}));
    assert!(log("%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%"));
    assert!(!log("%GRPC_STATUS%"));
}
