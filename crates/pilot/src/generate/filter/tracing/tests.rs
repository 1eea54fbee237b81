//! Who gets spans of which requests.

use std::sync::Arc;

use config::{Store, yaml};
use mesh::MeshConfig;
use proto::envoy::config::core::v3::Node;
use proto::reflect;

use super::{Traced, of};
use crate::generate::filter::{Direction, Place};
use crate::protocol::Protocol;
use crate::scope::{Scope, View};
use crate::{Proxy, Settings, Snapshot};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: spans, namespace: tracing}
spec: {clusterIP: 10.0.0.9, ports: [{name: http, port: 9411}]}
---
";

fn traced(mesh: &str, telemetry: &str, metadata: &serde_json::Value, direction: Direction) -> Traced {
    let text = format!(
        "{SERVICE}apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: t}}\nspec: {telemetry}\n"
    );
    let contents = yaml::read("mesh.yaml", &text);
    let is_error = |problem: &config::Problem| problem.severity == config::Severity::Error;
    assert!(!contents.problems.iter().any(is_error), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    let settings = Settings::new(Arc::new(MeshConfig::from_yaml(mesh).unwrap()), "Kubernetes");
    let snapshot = Snapshot::build(&store, &settings);
    let node = serde_json::json!({
        "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default", "metadata": metadata,
    });
    let node: Node =
        prost::Message::decode(reflect::from_json("envoy.config.core.v3.Node", node).unwrap().as_slice())
            .unwrap();
    let proxy = Proxy::from_node(&node).unwrap();
    let view = View::new(&snapshot, &proxy);
    of(Scope::new(&snapshot, &proxy, &view), Place::new(direction, Protocol::Http, 80, None))
}

fn sampling(traced: &Traced) -> Option<f64> {
    Some(traced.tracing.as_ref()?.random_sampling.as_ref()?.value)
}

fn provider(traced: &Traced) -> Option<String> {
    Some(traced.tracing.as_ref()?.provider.as_ref()?.name.clone())
}

const MESH: &str = "
extensionProviders:
- {name: z, zipkin: {service: spans.tracing.svc.cluster.local, port: 9411}}
- {name: gone, zipkin: {service: gone.tracing.svc.cluster.local, port: 9411}}
- {name: s, skywalking: {service: tracing/spans.tracing.svc.cluster.local, port: 9411, accessToken: t}}
- {name: o, opentelemetry: {service: spans.tracing.svc.cluster.local, port: 9411, http: {path: /v1//traces},
    resourceDetectors: {environment: {}}}}
";

#[test]
fn items_are_laid_over_each_other_for_one_side() {
    let of = |telemetry: &str, direction| traced(MESH, telemetry, &serde_json::json!({}), direction);
    let (client, server) = (Direction::Outbound, Direction::Inbound);
    let spec = "{tracing: [{providers: [{name: z}], randomSamplingPercentage: 5}, {match: {mode: SERVER}, randomSamplingPercentage: 7, disableSpanReporting: true}]}";
    assert_eq!(sampling(&of(spec, client)), Some(5.0));
    assert_eq!(provider(&of(spec, client)).as_deref(), Some("envoy.tracers.zipkin"));
    assert_eq!(sampling(&of(spec, server)), None);
    // No provider, or one that leads nowhere: no spans.
    assert_eq!(provider(&of("{tracing: [{randomSamplingPercentage: 5}]}", client)), None);
    assert!(of("{tracing: [{providers: [{name: gone}]}]}", client).tracing.is_none());
    assert!(of("{tracing: [{providers: [{name: envoy}]}]}", client).tracing.is_none());
    let marks = "{tracing: [{providers: [{name: z}], useRequestIdForTraceSampling: false}]}";
    assert!(!of(marks, client).marks_request_id);
}

#[test]
fn collectors_are_named_by_cluster() {
    let of = |name: &str| {
        let telemetry = format!("{{tracing: [{{providers: [{{name: {name}}}]}}]}}");
        let traced =
            traced(MESH, &telemetry, &serde_json::json!({"ISTIO_VERSION": "1.32.0"}), Direction::Gateway);
        let tracing = prost::Message::encode_to_vec(&traced.tracing.unwrap());
        let name =
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing";
        reflect::to_json(name, &tracing).unwrap()["provider"]["typedConfig"].clone()
    };
    let cluster = "outbound|9411||spans.tracing.svc.cluster.local";
    let zipkin = of("z");
    assert_eq!(zipkin["collectorService"]["httpUri"]["cluster"], cluster);
    assert_eq!(
        zipkin["collectorService"]["httpUri"]["uri"],
        "http://spans.tracing.svc.cluster.local/api/v2/spans"
    );
    let otel = of("o");
    assert_eq!(otel["httpService"]["httpUri"]["uri"], "spans.tracing.svc.cluster.local/v1/traces");
    assert_eq!(otel["serviceName"], "a.default");
    assert_eq!(
        otel["resourceDetectors"][0]["name"],
        "envoy.tracers.opentelemetry.resource_detectors.environment"
    );
    let skywalking = of("s");
    assert_eq!(skywalking["grpcService"]["envoyGrpc"]["clusterName"], cluster);
    assert_eq!(skywalking["clientConfig"]["backendToken"], "t");
}

#[test]
fn the_proxys_own_settings_are_the_default() {
    let metadata = serde_json::json!({"PROXY_CONFIG": {"concurrency": 2, "tracing": {
        "sampling": 33.5, "maxPathTagLength": 9, "enableIstioTags": false,
        "customTags": {"a": {"literal": {"value": "b"}}}}}});
    let traced = traced("{}", "{}", &metadata, Direction::Inbound);
    assert_eq!(sampling(&traced), Some(33.5));
    let tracing = traced.tracing.unwrap();
    assert_eq!(tracing.max_path_tag_length, Some(9));
    assert_eq!(tracing.custom_tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), ["a"]);
}
