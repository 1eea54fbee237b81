//! A proxy that refuses what it is sent.

use std::time::Duration;

use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::time::timeout;

use super::plane::{Exchange, Plane, node};
use super::{CLUSTER, ENDPOINT, LISTENER, ROUTE, good, soon};

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

fn ask(type_url: &str, nonce: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: type_url.into(),
        response_nonce: nonce.into(),
        resource_names_subscribe: names.iter().map(|&name| name.into()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn refuse(type_url: &str, nonce: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    let message = format!("{type_url} is not for me");
    let status = proto::google::rpc::Status { code: 3, message, ..proto::google::rpc::Status::default() };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ask(type_url, nonce, names) }
}

async fn next(stream: &mut Stream, type_url: &str) -> DeltaDiscoveryResponse {
    let response = soon(type_url, stream.next()).await.unwrap();
    assert_eq!(response.type_url, type_url);
    response
}

async fn metric(plane: &Plane, line: &str) {
    soon(line, async {
        while !plane.page(plane.running.monitoring, "/metrics").await.1.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_refusal_are_answered_and_every_refusal_counts() {
    let plane = Plane::start().await;
    let mut stream = plane.delta(Some(&good(&plane))).await;
    stream.send(ask(ROUTE, "", &["9080"])).await;
    let first = next(&mut stream, ROUTE).await;
    stream.send(refuse(ROUTE, &first.nonce, &["no-such-route"])).await;
    let second = next(&mut stream, ROUTE).await;
    // Envoy waits for what it asks for: it gets routes, of which there are none.
    assert_eq!(second.resources[0].name, "no-such-route");
    metric(&plane, "pilot_total_xds_rejects{type=\"rds\"} 1").await;
    // It answers the first one again, which a second has overtaken.
    stream.send(refuse(ROUTE, &first.nonce, &[])).await;
    metric(&plane, "pilot_total_xds_rejects{type=\"rds\"} 2").await;
    metric(&plane, "pilot_xds_expired_nonce{type=\"rds\"} 1").await;
    // The answer to the second does not hide that.
    stream.send(ask(ROUTE, &second.nonce, &[])).await;
    stream.send(ask(LISTENER, "", &[])).await;
    next(&mut stream, LISTENER).await;
    let page = plane.page(plane.running.monitoring, "/debug/syncz").await.1;
    assert!(page.contains("is not for me") && page.contains("ERROR"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_a_refused_route_stay() {
    let plane = Plane::start().await;
    let mut stream = plane.delta(Some(&good(&plane))).await;
    stream.send(ask(CLUSTER, "", &[])).await;
    let response = next(&mut stream, CLUSTER).await;
    stream.send(ask(CLUSTER, &response.nonce, &[])).await;
    let names: Vec<String> = response.resources.into_iter().map(|resource| resource.name).collect();
    let v2 = "outbound|9080|v2|reviews.default.svc.cluster.local";
    assert!(names.iter().any(|name| name == v2), "{names:?}");
    for (type_url, name) in [(ENDPOINT, v2), (ROUTE, "9080")] {
        stream.send(ask(type_url, "", &[name])).await;
        let response = next(&mut stream, type_url).await;
        stream.send(ask(type_url, &response.nonce, &[])).await;
    }
    // The subset goes, with every route to it; the proxy refuses the new routes.
    let rule = plane.read("reviews-destination.yaml").replace("name: v2", "name: v9");
    plane.write("reviews-route.yaml", &plane.read("reviews-route.yaml").replace("subset: v2", "subset: v1"));
    plane.write("reviews-destination.yaml", &rule);
    let mut is_refused = false;
    let mut removed: Vec<String> = Vec::new();
    while let Ok(response) =
        timeout(Duration::from_millis(if is_refused { 500 } else { 20_000 }), stream.next()).await
    {
        let response = response.unwrap();
        let is_route = response.type_url == ROUTE;
        is_refused |= is_route;
        assert_ne!(response.type_url, ENDPOINT, "the endpoints of v2 stay");
        removed.extend(response.removed_resources);
        let answer = if is_route { refuse } else { ask };
        stream.send(answer(&response.type_url, &response.nonce, &[])).await;
    }
    assert_eq!(removed, [""; 0], "old routes lead there");
    // New routes that are accepted: now it goes.
    let route = plane.read("reviews-route.yaml").replace("jason", "jane");
    plane.write("reviews-route.yaml", &route);
    while removed.is_empty() {
        let response = soon("the removal", stream.next()).await.unwrap();
        removed.extend(response.removed_resources);
        stream.send(ask(&response.type_url, &response.nonce, &[])).await;
    }
    assert_eq!(removed, [v2]);
}
