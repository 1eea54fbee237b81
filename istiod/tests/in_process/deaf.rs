//! Clients that ask and take nothing of the answers.

use std::time::Duration;

use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::Code;

use super::plane::{Exchange, Plane, node};
use super::{CLUSTER, ENDPOINT, LISTENER, ROUTE, clusters, good, next_of, soon};

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// Bytes that such a client lets come.
const WINDOW: u32 = 1024;

async fn start(send_timeout: &'static str) -> Plane {
    Plane::start_with(|name| (name == "PILOT_XDS_SEND_TIMEOUT").then(|| send_timeout.to_owned())).await
}

/// Asks for more answers than may wait for it.
async fn ask(stream: &mut Stream) {
    let request = |type_url: &str, names: &[&str]| DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(|&name| name.into()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let endpoints = "outbound|9080||reviews.default.svc.cluster.local";
    for (type_url, names) in
        [(CLUSTER, &[][..]), (LISTENER, &[]), (ENDPOINT, &[endpoints]), (ROUTE, &["9080"]), (ROUTE, &["80"])]
    {
        stream.send(request(type_url, names)).await;
    }
}

async fn metrics(plane: &Plane) -> String {
    plane.page(plane.running.monitoring, "/metrics").await.1
}

async fn metric(plane: &Plane, line: &str) {
    soon(line, async {
        while !metrics(plane).await.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_for_the_time_is_told_so_when_it_listens_again() {
    let plane = start("3s").await;
    let sender = plane.door.connect_with(Some(WINDOW)).await;
    let mut stream = plane.door.delta_over(sender, Some(&good(&plane)));
    ask(&mut stream).await;
    metric(&plane, "pilot_xds_write_timeout 1").await;
    // What was written before comes first.
    let mut types = Vec::new();
    let status = loop {
        match soon("the rest", stream.next()).await {
            Ok(response) => types.push(response.type_url),
            Err(status) => break status,
        }
    };
    assert_eq!(types[0], CLUSTER);
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("taken no response for 3s"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_listens_is_cut_off_and_nothing_is_kept_for_it() {
    let plane = start("1s").await;
    let token = good(&plane);
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let sender = plane.door.connect_with(Some(WINDOW)).await;
        let mut stream = plane.door.delta_over(sender.clone(), Some(&token));
        ask(&mut stream).await;
        deaf.push((stream, sender));
    }
    let mut good = plane.sotw(Some(&token)).await;
    good.send(clusters("")).await;
    let mut last = next_of(&mut good, CLUSTER).await;
    let text = plane.read("reviews-destination.yaml");
    let mut limit = 100;
    // Changes go on for as long as one of them is there; the one that listens gets them all.
    while !deaf.iter().all(|(_, sender)| sender.is_closed()) {
        good.send(clusters(&last.nonce)).await;
        limit += 1;
        plane.write("reviews-destination.yaml", &text.replace("100", &limit.to_string()));
        last = next_of(&mut good, CLUSTER).await;
        // Each has what it asked for first, and nothing of what has changed since.
        let page = metrics(&plane).await;
        let pushes = page.lines().filter(|line| line.starts_with("pilot_xds_pushes{"));
        let count: f64 = pushes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        let most = 20 * 6 + (limit - 99);
        assert!(count <= f64::from(most), "{count} pushes, {most} at most:\n{page}");
    }
    assert!(limit > 101, "there was no change while they were there");
    metric(&plane, "pilot_xds{version=\"unknown\"} 1\n").await;
    let page = plane.page(plane.running.monitoring, "/debug/adsz").await.1;
    assert_eq!(page.matches("\"connectionId\"").count(), 1, "{page}");
}
