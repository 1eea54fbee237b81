//! Clients of xDS that say what no proxy says.

use std::time::Duration;

use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tokio::time::timeout;
use tonic::Code;

use super::plane::{Plane, node};
use super::{CLUSTER, ENDPOINT, LISTENER, clusters, good, next_of, soon};

fn delta(type_url: &str, nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: type_url.into(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_none_is_told_so() {
    let plane = Plane::start().await;
    let token = good(&plane);
    for id in [
        "",
        "reviews",
        "sidecar~10.77.0.21~reviews-v1.default",
        "sidecar~10.77.0.21~reviews-v1.default~default.svc.cluster.local~more",
        "sidecar~nowhere~reviews-v1.default~default.svc.cluster.local",
        "sidecar~~reviews-v1.default~default.svc.cluster.local",
        "dragon~10.77.0.21~reviews-v1.default~default.svc.cluster.local",
        "sidecar~10.77.0.21~reviews-v1~default.svc.cluster.local",
        "\u{0}~\u{0}~\u{0}~\u{0}",
    ] {
        let mut stream = plane.delta(Some(&token)).await;
        let node = Some(Node { id: id.into(), ..Node::default() });
        stream.send(DeltaDiscoveryRequest { node, ..delta(CLUSTER, "") }).await;
        let status = soon(id, stream.next()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{id:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_a_stream_is_for_is_said_once() {
    let plane = Plane::start().await;
    let mut stream = plane.sotw(Some(&good(&plane))).await;
    stream.send(clusters("")).await;
    let first = next_of(&mut stream, CLUSTER).await;
    // Somebody else's node, by which other resources would be had.
    let other = node("admin", "10.77.0.99")
        .map(|node| Node { id: node.id.replace("default", "kube-system"), ..node });
    let again = DiscoveryRequest { node: other, type_url: LISTENER.into(), ..clusters("") };
    stream.send(again).await;
    next_of(&mut stream, LISTENER).await;
    let page = plane.page(plane.running.monitoring, "/debug/syncz").await.1;
    assert!(page.contains("reviews-v1.default") && !page.contains("admin"), "{page}");
    stream.send(clusters(&first.nonce)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_are_none_tell_nothing() {
    let plane = Plane::start().await;
    let token = good(&plane);
    for type_url in ["", "istio.io/debug/configz", "type.googleapis.com/google.protobuf.Any"] {
        let mut stream = plane.delta(Some(&token)).await;
        stream.send(delta(type_url, "")).await;
        let response = soon(type_url, stream.next()).await.unwrap();
        assert!(response.resources.is_empty(), "{type_url:?}: {response:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_without_end_are_not_answered() {
    let plane = Plane::start().await;
    let mut stream = plane.delta(Some(&good(&plane))).await;
    stream.send(delta(CLUSTER, "")).await;
    let first = soon("clusters", stream.next()).await.unwrap();
    let error = proto::google::rpc::Status { code: 13, message: "no".repeat(5000), ..Default::default() };
    for _ in 0..200 {
        let refusal =
            DeltaDiscoveryRequest { error_detail: Some(error.clone()), ..delta(CLUSTER, &first.nonce) };
        stream.send(refusal).await;
    }
    // The next thing that is said is what is asked for next.
    stream.send(delta(LISTENER, "")).await;
    let next = soon("listeners", stream.next()).await.unwrap();
    assert_eq!(next.type_url, LISTENER);
    assert!(timeout(Duration::from_millis(200), stream.next()).await.is_err());
    let metrics = plane.page(plane.running.monitoring, "/metrics").await.1;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"cds\"} 200"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_reads_nothing_harms_nobody() {
    let plane = Plane::start().await;
    let token = good(&plane);
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = plane.delta(Some(&token)).await;
        stream.send(delta(CLUSTER, "")).await;
        stream.send(delta(LISTENER, "")).await;
        idle.push(stream);
    }
    let mut stream = plane.sotw(Some(&token)).await;
    stream.send(clusters("")).await;
    let mut last = next_of(&mut stream, CLUSTER).await;
    for limit in 50..60 {
        stream.send(clusters(&last.nonce)).await;
        let text = plane.read("reviews-destination.yaml");
        let at = text.find("maxConnections: ").unwrap() + "maxConnections: ".len();
        let end = at + text[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
        plane.write("reviews-destination.yaml", &format!("{}{limit}{}", &text[..at], &text[end..]));
        last = next_of(&mut stream, CLUSTER).await;
    }
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_nobody_asked_for_are_not_there() {
    let plane = Plane::start().await;
    let token = good(&plane);
    for method in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
        "/nothing.Nothing/Nothing",
    ] {
        let status = plane.call(Some(&token), method).await;
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_exist_nowhere_are_answered() {
    let plane = Plane::start().await;
    let mut stream = plane.delta(Some(&good(&plane))).await;
    stream.send(delta(CLUSTER, "")).await;
    soon("clusters", stream.next()).await.unwrap();
    let names: Vec<String> =
        (0..20_000).map(|index| format!("outbound|80||no-{index}.default.svc.cluster.local")).collect();
    stream.send(DeltaDiscoveryRequest { resource_names_subscribe: names, ..delta(ENDPOINT, "") }).await;
    let response = soon("endpoints", stream.next()).await.unwrap();
    assert_eq!(response.type_url, ENDPOINT);
    assert_eq!(response.resources.len(), 20_000, "Envoy waits for each");
}
