//! The end of an istiod: proxies go elsewhere one after another.

use std::time::{Duration, Instant};

use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::Code;

use super::plane::{Exchange, Plane, node, page};
use super::{CLUSTER, csr, good, soon};

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// Time of the shutdown in these cases.
const SHUTDOWN: Duration = Duration::from_secs(3);
/// Proxies that are connected.
const PROXIES: usize = 24;

async fn start() -> Plane {
    Plane::start_as(&["--shutdownDuration", "3s"], |_| None).await
}

async fn ask(stream: &mut Stream) {
    let request = DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: CLUSTER.into(),
        ..DeltaDiscoveryRequest::default()
    };
    stream.send(request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_handed_over_all_over_the_window_and_nobody_new_is_taken() {
    let plane = start().await;
    let token = good(&plane);
    let mut proxies = Vec::new();
    for _ in 0..PROXIES {
        let sender = plane.door.connect().await;
        let mut stream = plane.door.delta_over(sender.clone(), Some(&token));
        ask(&mut stream).await;
        soon("clusters", stream.next()).await.unwrap();
        proxies.push((stream, sender));
    }
    let (door, pages) = (plane.door.clone(), plane.running.http);
    let tasks = runtime::tasks::Tasks::new();
    let begin = Instant::now();
    let stop = tasks.spawn("stop", plane.running.stop());
    let mut waiting = Vec::new();
    for (mut stream, sender) in proxies {
        waiting.push(tasks.spawn("proxy", async move {
            let status = stream.next().await.unwrap_err();
            let at = begin.elapsed();
            // Its connection takes no other stream.
            while !sender.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (status, at)
        }));
    }
    // Another thread has yet to begin with the end.
    let why = soon("the end of readiness", async {
        loop {
            let (code, why) = page(pages, "/ready").await;
            if code == 503 {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(why.contains("istiod is stopping"), "{why}");
    assert!(page(pages, "/debug").await.1.contains("istiod is stopping"));
    // Who comes now is told at once to go elsewhere, and the connection is of no use.
    let sender = door.connect().await;
    let mut late = door.delta_over(sender.clone(), Some(&token));
    ask(&mut late).await;
    let status = soon("a refusal", late.next()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("another one goes on"), "{status}");
    // A certificate is still had.
    let csr = csr("spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
    soon("a certificate", door.certificate(Some(&token), &csr, 3600)).await.unwrap();

    let mut ends = Vec::new();
    for proxy in waiting {
        let (status, at) = soon("the end of a stream", proxy).await.unwrap().unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("istiod is stopping"), "{status}");
        ends.push(at);
    }
    soon("the end", stop).await.unwrap();
    ends.sort();
    // The probability that so many random moments lie in a third of the window is nothing.
    let spread = ends[PROXIES - 1] - ends[0];
    assert!(spread > SHUTDOWN.mul_f64(0.8) / 3, "{ends:?}");
    assert!(tokio::net::TcpStream::connect(pages).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proxies_the_end_waits_for_nobody() {
    let plane = Plane::start_as(&["--shutdownDuration", "1h"], |_| None).await;
    soon("the end", plane.running.stop()).await;
}
