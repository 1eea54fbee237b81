//! What is left out is told: by metrics, pages and problems.

use std::time::Duration;

use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use serde_json::Value;

use super::plane::{Exchange, Plane, node};
use super::{CLUSTER, ENDPOINT, LISTENER, ROUTE, good, soon};

/// Two services want the same connections, two DestinationRules have one subset,
/// two services lead to one port of a workload by other protocols.
const OBJECTS: &str = r"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: default, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {hosts: [first.example], addresses: [192.0.2.1], ports: [{number: 9000, name: tcp, protocol: TCP}], resolution: STATIC}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: default, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {hosts: [second.example], addresses: [192.0.2.1], ports: [{number: 9000, name: tcp, protocol: TCP}], resolution: STATIC}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one, namespace: default, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {host: first.example, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: two, namespace: default, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {host: first.example, subsets: [{name: v1, labels: {version: v9}}]}
---
apiVersion: v1
kind: Service
metadata: {name: zz-reviews, namespace: default, creationTimestamp: '2030-01-01T00:00:00Z'}
spec: {clusterIP: 10.77.9.9, selector: {app: reviews}, ports: [{name: tcp, port: 9999, targetPort: 9080}]}
";

async fn value(plane: &Plane, metric: &str) -> i64 {
    let page = plane.page(plane.running.monitoring, "/metrics").await.1;
    let line = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{metric}: {page}")).parse().unwrap()
}

async fn becomes(plane: &Plane, metric: &str, want: i64) {
    soon(&format!("{metric} {want}"), async {
        while value(plane, metric).await != want {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Answers everything until it is told to stop.
async fn serve(mut stream: Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>) {
    loop {
        let Ok(response) = stream.next().await else { return };
        let accept = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        stream.send(accept).await;
    }
}

async fn proxy(plane: &Plane) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    let mut stream = plane.delta(Some(&good(plane))).await;
    let names = |type_url: &str| match type_url {
        ENDPOINT => vec!["outbound|9000||first.example".to_owned()],
        ROUTE => vec!["9080".to_owned()],
        _ => Vec::new(),
    };
    for type_url in [CLUSTER, ENDPOINT, LISTENER, ROUTE] {
        let request = DeltaDiscoveryRequest {
            node: node("reviews-v1", "10.77.0.21"),
            type_url: type_url.into(),
            resource_names_subscribe: names(type_url),
            ..DeltaDiscoveryRequest::default()
        };
        stream.send(request).await;
    }
    stream
}

const LISTENERS: &str = "pilot_conflict_outbound_listener_tcp_over_current_tcp";
const SUBSETS: &str = "pilot_destrule_subsets";
const INBOUND: &str = "pilot_conflict_inbound_listener";
const EMPTY: &str = "pilot_eds_no_instances";

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_told_as_long_as_they_last() {
    let plane = Plane::start().await;
    let stream = proxy(&plane).await;
    tokio::select! {
        () = serve(stream) => panic!("the stream ends"),
        () = story(&plane) => {}
    }
}

async fn story(plane: &Plane) {
    for metric in [LISTENERS, SUBSETS, INBOUND] {
        becomes(plane, metric, 0).await;
    }
    plane.write("conflicts.yaml", OBJECTS);
    for metric in [LISTENERS, SUBSETS, INBOUND, EMPTY] {
        becomes(plane, metric, 1).await;
    }
    let status = plane.page(plane.running.monitoring, "/debug/push_status").await.1;
    let status: Value = serde_json::from_str(&status).unwrap();
    let event = &status[LISTENERS]["192.0.2.1_9000"];
    assert_eq!(event["proxy"], "reviews-v1.default");
    assert!(event["message"].as_str().unwrap().contains("second.example"), "{event}");
    assert!(status[INBOUND]["reviews-v1.default"]["message"].as_str().unwrap().contains("zz-reviews"));
    assert!(status[SUBSETS]["first.example"]["message"].as_str().unwrap().contains("v1"));
    assert!(status[EMPTY]["outbound|9000||first.example"].is_object(), "{status}");
    // Who wrote the objects is told where.
    let page = plane.page(plane.running.monitoring, "/debug/sourcez").await.1;
    let page: Value = serde_json::from_str(&page).unwrap();
    let problems = page["conflicts"].to_string();
    for object in ["ServiceEntry default/second", "DestinationRule default/two", "Service default/zz-reviews"]
    {
        assert!(problems.contains(object) && problems.contains("conflicts.yaml:"), "{object}: {problems}");
    }
    assert!(!problems.contains("default/first"), "{problems}");
    // What is mended is told no more.
    plane.write("conflicts.yaml", &OBJECTS.replacen("192.0.2.1]", "192.0.2.7]", 1));
    becomes(plane, LISTENERS, 0).await;
    becomes(plane, SUBSETS, 1).await;
    plane.write("conflicts.yaml", "");
    for metric in [SUBSETS, INBOUND] {
        becomes(plane, metric, 0).await;
    }
    let metrics = plane.page(plane.running.monitoring, "/metrics").await.1;
    for line in [
        "pilot_push_triggers{type=\"config\"}",
        "pilot_inbound_updates{type=\"svcdelete\"} 1",
        "pilot_info{version=",
        "pilot_proxy_convergence_time_count",
        "pilot_xds_config_size_bytes_count{type=\"type.googleapis.com/envoy.config.cluster.v3.Cluster\"}",
        "pilot_xds_recv_max ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
