//! The agent in process: against a control plane that speaks the real
//! protocols over real TLS, seen from Envoy's side of its sockets.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "in_process/certificates.rs"]
mod certificates;
#[path = "in_process/istiod.rs"]
mod istiod;
#[path = "in_process/life.rs"]
mod life;
#[path = "in_process/pod.rs"]
mod pod;
#[path = "in_process/secrets.rs"]
mod secrets;
#[path = "in_process/streams.rs"]
mod streams;

use std::time::{Duration, SystemTime};

use istiod::Istiod;
use pki::certificate::Certificate;
use pki::issuer::Issuer;
use pod::{HEADERS, Pod, Secret, secret};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use tokio::time::{sleep, timeout};

/// Far longer than anything takes on the slowest machine: it only keeps a
/// broken agent from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(120);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Between two looks at a condition.
const PERIOD: Duration = Duration::from_millis(5);
/// Counter of failed connections for xDS.
const XDS_FAILURES: &str = "istio_agent_istiod_connection_failures";
/// Counter of failed requests for a certificate.
const CSR_FAILURES: &str = "istio_agent_num_failed_outgoing_requests{request_type=\"csr\"}";

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            sleep(PERIOD).await;
        }
    })
    .await;
}

/// Waits until one of the agent's counters is at least that.
async fn until_counted(pod: &Pod, counter: &str, least: u64) {
    soon(counter, async {
        while pod.counter(counter).await < least {
            sleep(PERIOD).await;
        }
    })
    .await;
}

#[tokio::test]
async fn envoy_gets_certificate_key_and_roots() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("ISTIO_META_CLUSTER_ID", "k1"), ("CA_HEADER_X-TEAM", "a")]).await;
    let Secret::Certificate { chain, key } = secret(&pod, "default").await else { panic!() };
    let Secret::Roots(roots) = secret(&pod, "ROOTCA").await else { panic!() };
    assert_eq!(roots, istiod.root_pem());
    let certificates = Certificate::all_from_pem(&chain).unwrap();
    assert_eq!(certificates.len(), 2, "leaf and root");
    assert_eq!(certificates[0].uris, ["spiffe://cluster.local/ns/default/sa/web"]);
    let key = pki::key::PrivateKey::from_pem(&key).unwrap();
    assert!(pki::verify::client_config(&roots, Some((&chain, &key)), &[]).is_ok(), "a pair");

    let calls = istiod.calls();
    assert_eq!(calls.len(), 1, "both secrets come from one request");
    assert_eq!(calls[0]["authorization"], "Bearer first");
    assert_eq!(calls[0]["clusterid"], "k1");
    assert_eq!(calls[0]["x-team"], "a");
    pod.stop().await;
}

#[tokio::test]
async fn rsa_keys_are_made_when_a_size_is_set() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("WORKLOAD_RSA_KEY_SIZE", "2048")]).await;
    let Secret::Certificate { chain, key } = secret(&pod, "default").await else { panic!() };
    let key = pki::key::PrivateKey::from_pem(&key).unwrap();
    // 2048 bits of modulus alone are longer than any ECDSA key.
    assert!(key.public_key_pem().len() > 400);
    assert!(pki::verify::client_config(&istiod.root_pem(), Some((&chain, &key)), &[]).is_ok());
    pod.stop().await;
}

#[tokio::test]
async fn renews_with_nobody_subscribed_and_reads_the_token_anew() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("SECRET_TTL", "2s")]).await;
    until("first certificate", || pod.identity().is_some()).await;
    assert_eq!(istiod.calls()[0]["authorization"], "Bearer first");
    let first = pod.identity().unwrap().serial.clone();
    pod.write_token("second\n");
    let with_new_token = || istiod.calls().iter().any(|call| call["authorization"] == "Bearer second");
    until("a renewal with the new token", with_new_token).await;
    until("another certificate", || pod.identity().unwrap().serial != first).await;
    pod.stop().await;
}

#[tokio::test]
async fn a_renewal_is_pushed_and_unchanged_roots_are_not() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("SECRET_TTL", "2s")]).await;
    let mut stream = pod.secrets().await;
    let request = |nonce: &str| DiscoveryRequest {
        resource_names: vec!["default".into(), "ROOTCA".into()],
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    };
    stream.send(request("")).await;
    let first: DiscoveryResponse = soon("both secrets", stream.next()).await.unwrap();
    assert_eq!(first.resources.len(), 2);
    stream.send(request(&first.nonce)).await;
    let second = soon("the renewed one", stream.next()).await.unwrap();
    assert_eq!(second.resources.len(), 1);
    assert_ne!(second.resources[0].value, first.resources[0].value);
    assert_ne!((&second.nonce, &second.version_info), (&first.nonce, &first.version_info));
    pod.stop().await;
}

#[tokio::test]
async fn an_unknown_secret_is_an_error_that_says_so() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    let mut stream = pod.secrets().await;
    let request =
        DiscoveryRequest { resource_names: vec!["kubernetes://x".into()], ..DiscoveryRequest::default() };
    stream.send(request).await;
    let status = soon("an end", stream.next()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().contains("kubernetes://x"), "{}", status.message());
    pod.stop().await;
}

#[tokio::test]
async fn a_missing_token_is_waited_for() {
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[]);
    pod.remove_token();
    let pod = pod.run().await;
    until("a call without a token", || !istiod.calls().is_empty()).await;
    assert!(!istiod.calls()[0].contains_key("authorization"));
    assert!(pod.identity().is_none());
    pod.write_token("late");
    until("a certificate", || pod.identity().is_some()).await;
    pod.stop().await;
}

#[tokio::test]
async fn a_server_of_other_roots_gets_neither_token_nor_key() {
    let istiod = Istiod::start().await;
    let (stranger, _) = Issuer::self_signed("other", PATIENCE, SystemTime::now()).unwrap();
    let pod = Pod::prepare(&istiod, &[]);
    pod.write_root(stranger.root_pem());
    let pod = pod.run().await;
    until_counted(&pod, CSR_FAILURES, 3).await;
    assert!(pod.identity().is_none());
    assert!(istiod.calls().is_empty());
    // The right roots arrive: they are read anew for each connection.
    pod.write_root(&istiod.root_pem());
    until("a certificate", || pod.identity().is_some()).await;
    pod.stop().await;
}

fn request(name: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        resource_names_subscribe: vec![name.into()],
        ..DeltaDiscoveryRequest::default()
    }
}

#[tokio::test]
async fn xds_messages_of_any_size_pass_both_ways_unchanged() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("XDS_HEADER_X-A", "b"), ("ISTIO_META_CLUSTER_ID", "k1")]).await;
    let mut stream = pod.delta().await;
    for size in [0, 1, 100, 20_000, 3_000_000] {
        let name = "n".repeat(size);
        stream.send(request(&name)).await;
        let response = soon("an answer", stream.next()).await.unwrap();
        assert_eq!(response.resources[0].name, name);
        assert_eq!(response.resources[0].resource.as_ref().unwrap().value.len(), size * 2);
    }
    let seen = istiod.streams();
    assert_eq!(seen[0]["authorization"], "Bearer first");
    assert_eq!(seen[0]["clusterid"], "k1");
    assert_eq!(seen[0]["x-a"], "b");

    let mut sotw = pod.sotw().await;
    let request = DiscoveryRequest {
        resource_names: vec!["x".into()],
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        ..DiscoveryRequest::default()
    };
    sotw.send(request).await;
    assert_eq!(soon("an answer", sotw.next()).await.unwrap().version_info, "x");

    let metrics = pod.get("/stats/prometheus").await.1;
    assert!(metrics.contains("istio_agent_xds_proxy_requests 6"), "{metrics}");
    assert!(metrics.contains("istio_agent_xds_proxy_responses 6"), "{metrics}");
    pod.stop().await;
}

#[tokio::test]
async fn clients_that_name_the_sockets_path_are_served() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    // What the gRPC libraries of C++ and Python, and of Java, send.
    let spelled = &b"\x40\x0a:authority"[..];
    for (name, authority) in [(spelled, "etc%2Fistio%2Fproxy%2FXDS"), (&[0x41], "/etc/istio/proxy/XDS")] {
        let kinds = soon("an answer", pod.raw_secret_stream(name, authority)).await;
        assert!(kinds.contains(&HEADERS), "{authority}: {kinds:?}");
    }
    pod.stop().await;
}

#[tokio::test]
async fn a_second_client_does_not_displace_the_first() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    let mut first = pod.delta().await;
    first.send(request("a")).await;
    soon("first", first.next()).await.unwrap();
    let mut second = pod.delta().await;
    second.send(request("b")).await;
    soon("second", second.next()).await.unwrap();
    first.send(request("c")).await;
    assert_eq!(soon("first again", first.next()).await.unwrap().resources[0].name, "c");
    assert_eq!(istiod.connections(), 3, "one for the certificate, one for each stream");
    pod.stop().await;
}

#[tokio::test]
async fn a_restart_of_istiod_is_followed_at_once() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    let mut stream = pod.delta().await;
    stream.send(request("a")).await;
    soon("an answer", stream.next()).await.unwrap();

    istiod.stop().await;
    let status = soon("the end of the stream", stream.next()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");

    // What Envoy opens now is held until istiod is back, not refused.
    let mut stream = pod.delta().await;
    stream.send(request("b")).await;
    {
        let mut answer = std::pin::pin!(stream.next());
        tokio::select! {
            () = until_counted(&pod, XDS_FAILURES, 3) => {}
            answer = &mut answer => panic!("an answer while istiod is down: {answer:?}"),
        }
    }
    let istiod = istiod.restart();
    let failures = pod.counter(XDS_FAILURES).await;
    assert_eq!(soon("an answer", stream.next()).await.unwrap().resources[0].name, "b");
    // One try may have been on its way when istiod came back.
    let more = pod.counter(XDS_FAILURES).await - failures;
    assert!(more <= 1, "{more} failures after istiod was back");
    drop(istiod);
    pod.stop().await;
}

#[tokio::test]
async fn a_pod_may_start_before_istiod() {
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[]);
    istiod.stop().await;
    let pod = pod.run().await;
    let mut stream = pod.delta().await;
    stream.send(request("a")).await;
    until_counted(&pod, XDS_FAILURES, 1).await;
    until_counted(&pod, CSR_FAILURES, 1).await;
    let istiod = istiod.restart();
    soon("an answer", stream.next()).await.unwrap();
    until("a certificate", || pod.identity().is_some()).await;
    drop(istiod);
    pod.stop().await;
}
