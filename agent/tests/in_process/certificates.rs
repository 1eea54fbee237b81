//! Certificates and tokens when something is not as it should be.

use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::certificate::Certificate;
use proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::Code;

use crate::istiod::Istiod;
use crate::pod::{Pod, Secret, secret};
use crate::{CSR_FAILURES, XDS_FAILURES, request, soon, until, until_counted};

const CSR_RETRIES: &str = "istio_agent_num_outgoing_retries{request_type=\"csr\"}";

/// A token that ends that many seconds from now.
fn token(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let end = i64::try_from(now).unwrap() + seconds;
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"iat\":{},\"exp\":{end}}}", end - 3600));
    format!("e30.{claims}.c2ln")
}

#[tokio::test]
async fn an_expired_token_is_sent_to_nobody_and_a_new_one_at_once() {
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[]);
    pod.write(names::path::TOKEN, &token(-60));
    let pod = pod.run().await;
    let mut stream = pod.delta().await;
    stream.send(request("a")).await;
    until_counted(&pod, CSR_FAILURES, 3).await;
    until_counted(&pod, XDS_FAILURES, 3).await;
    assert!(istiod.calls().is_empty() && istiod.streams().is_empty());
    assert_eq!(istiod.connections(), 0, "nobody is dialled for nothing");
    let metrics = pod.get("/stats/prometheus").await.1;
    assert!(metrics.contains("istio_agent_token_expiry_seconds -"), "{metrics}");

    let good = token(3600);
    pod.write_token(&good);
    until("a certificate", || pod.identity().is_some()).await;
    soon("an answer", stream.next()).await.unwrap();
    assert_eq!(istiod.calls()[0]["authorization"], format!("Bearer {good}"));
    assert_eq!(istiod.streams()[0]["authorization"], format!("Bearer {good}"));
    pod.stop().await;
}

#[tokio::test]
async fn a_refused_renewal_is_tried_again_while_the_old_certificate_lasts() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("SECRET_TTL", "4s")]).await;
    until("a certificate", || pod.identity().is_some()).await;
    let first = pod.identity().unwrap().serial.clone();
    istiod.refuse(Some(Code::PermissionDenied));
    until_counted(&pod, CSR_FAILURES, 2).await;
    assert_eq!(pod.identity().unwrap().serial, first);
    let Secret::Certificate { chain, .. } = secret(&pod, "default").await else { panic!() };
    assert_eq!(Certificate::all_from_pem(&chain).unwrap()[0].serial, first);
    assert_eq!(pod.counter(CSR_RETRIES).await, 0, "the same call would be refused again");
    istiod.refuse(None);
    until("another certificate", || pod.identity().unwrap().serial != first).await;
    pod.stop().await;
}

#[tokio::test]
async fn an_overloaded_ca_is_called_five_times_for_a_request() {
    let istiod = Istiod::start().await;
    istiod.refuse(Some(Code::Unavailable));
    let pod = Pod::start(&istiod, &[]).await;
    until_counted(&pod, CSR_FAILURES, 1).await;
    assert_eq!(pod.counter(CSR_RETRIES).await % 4, 0);
    assert!(istiod.calls().len() >= 5);
    istiod.refuse(None);
    until("a certificate", || pod.identity().is_some()).await;
    pod.stop().await;
}

#[tokio::test]
async fn certificates_are_written_for_others_and_again_after_each_renewal() {
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[("SECRET_TTL", "2s"), ("OUTPUT_CERTS", "out/certs")]).run().await;
    let read = |name: &str| pod.read(&format!("out/certs/{name}")).unwrap_or_default();
    let serial = || {
        let (chain, key) = (read("cert-chain.pem"), read("key.pem"));
        let key = pki::key::PrivateKey::from_pem(&key).ok()?;
        // Between two renames they are of different pairs.
        pki::verify::check_pair(&chain, &key).ok()?;
        Some(Certificate::all_from_pem(&chain).unwrap()[0].serial.clone())
    };
    until("a pair", || serial().is_some()).await;
    let first = serial();
    assert!(read("key.pem").starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    assert_eq!(read("root-cert.pem"), istiod.root_pem());
    for name in ["key.pem", "cert-chain.pem", "root-cert.pem"] {
        let mode = pod.path(&format!("out/certs/{name}")).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    until("another pair, with nobody subscribed", || serial().is_some_and(|serial| Some(serial) != first))
        .await;
    pod.stop().await;
}

#[tokio::test]
async fn a_new_root_comes_with_the_renewed_certificate() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("SECRET_TTL", "2s")]).await;
    let mut stream = pod.secrets().await;
    let ask = |nonce: &str| DiscoveryRequest {
        resource_names: vec!["ROOTCA".into()],
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    };
    stream.send(ask("")).await;
    let first: DiscoveryResponse = soon("the roots", stream.next()).await.unwrap();
    stream.send(ask(&first.nonce)).await;
    istiod.replace_root();
    let second = soon("the new roots", stream.next()).await.unwrap();
    assert_ne!(second.resources[0].value, first.resources[0].value);
    let Secret::Roots(roots) = secret(&pod, "ROOTCA").await else { panic!() };
    assert_eq!(roots, istiod.root_pem());
    pod.stop().await;
}

#[tokio::test]
async fn roots_of_the_configuration_are_added_sorted() {
    let (istiod, other) = (Istiod::start().await, Istiod::start().await);
    let config = serde_json::json!({
        "discoveryAddress": istiod.address(),
        "statusPort": 0,
        "proxyAdminPort": 1,
        "caCertificatesPem": [other.root_pem(), istiod.root_pem()],
    });
    let pod = Pod::start(&istiod, &[("PROXY_CONFIG", &config.to_string())]).await;
    let Secret::Roots(roots) = secret(&pod, "ROOTCA").await else { panic!() };
    let mut expected = [istiod.root_pem(), other.root_pem()];
    expected.sort();
    assert_eq!(roots, expected.concat());
    pod.stop().await;
}

#[tokio::test]
async fn a_provisioned_certificate_takes_the_place_of_the_token() {
    const ID: &str = "spiffe://cluster.local/ns/vm/sa/machine";
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[("PROV_CERT", "prov"), ("OUTPUT_CERTS", "prov")]);
    let (chain, key) = istiod.issue(ID);
    pod.write("prov/cert-chain.pem", &chain);
    pod.write("prov/key.pem", &key);
    pod.write("prov/root-cert.pem", &istiod.root_pem());
    pod.write(names::path::TOKEN, &token(-60));
    let pod = pod.run().await;
    until("a certificate", || pod.identity().is_some()).await;
    assert_eq!(istiod.shown(), [[ID]]);
    assert!(!istiod.calls()[0].contains_key("authorization"));
    // What was got is what the next request is made with.
    until("it is written", || pod.read("prov/cert-chain.pem").unwrap() == pod.identity().unwrap().chain_pem)
        .await;
    pod.stop().await;
}
