//! Secrets over xDS: who gets one, and who does not.

use std::time::{Duration, SystemTime};

use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::plane::{Exchange, Plane};
use super::{soon, token};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const NAMES: [&str; 4] = [
    "kubernetes-gateway://a/shop",
    "kubernetes-gateway://b/shop",
    "kubernetes://shop",
    "kubernetes://shop-cacert",
];

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// Secrets `a/shop` and `b/shop`, with a new certificate.
fn secrets() -> String {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let (issuer, _) = Issuer::self_signed("cluster.local", day, now).unwrap();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let san = [San::Dns("shop.example".into())];
    let chain = &issuer.issue(&Csr::of_key(&key).unwrap(), &san, day, now).unwrap()[0];
    let (key, roots) = (key.to_pkcs8_pem(), issuer.root_pem());
    let one = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
             stringData: {{tls.crt: {chain:?}, tls.key: {:?}, ca.crt: {roots:?}}}\n---\n",
            &**key
        )
    };
    // Pages for everybody do not name Secrets: this tells that the file was read.
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: gateway, namespace: a}\n";
    one("a") + &one("b") + account
}

/// Asks for all names, as a gateway that says it is of a namespace.
async fn ask(stream: &mut Stream, namespace: &str) -> DeltaDiscoveryResponse {
    let id = format!("router~10.0.0.1~gw.{namespace}~{namespace}.svc.cluster.local");
    let request = DeltaDiscoveryRequest {
        node: Some(Node { id, ..Node::default() }),
        type_url: SECRET.into(),
        resource_names_subscribe: NAMES.map(str::to_owned).to_vec(),
        ..DeltaDiscoveryRequest::default()
    };
    stream.send(request).await;
    soon("an answer", stream.next()).await.unwrap()
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_for_proven_identities_of_its_namespace() {
    // What a node says of itself counts for nothing, even where it is not compared.
    let plane =
        Plane::start_with(|name| (name == "PILOT_ENABLE_XDS_IDENTITY_CHECK").then(|| "false".into())).await;
    plane.write("secrets.yaml", &secrets());
    plane.settled("secrets.yaml").await;
    let own = ["kubernetes://shop", "kubernetes://shop-cacert"];
    for (proven, claimed, expected) in [
        ("a", "a", vec![NAMES[0], own[0], own[1]]),
        ("b", "b", vec![NAMES[1], own[0], own[1]]),
        ("c", "c", vec![]),
        // The names without a namespace mean the claimed one, which is not proven.
        ("a", "b", vec![NAMES[0]]),
        ("c", "a", vec![]),
    ] {
        let token = token(&plane.tokens(), proven, "gateway", "istio-ca", SystemTime::now());
        let response = ask(&mut plane.delta(Some(&token)).await, claimed).await;
        assert_eq!(names(&response), expected, "{proven} says it is {claimed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plaintext_port_gives_no_secrets() {
    let plane = Plane::start().await;
    plane.write("secrets.yaml", &secrets());
    plane.settled("secrets.yaml").await;
    let response = ask(&mut plane.plain_delta().await, "a").await;
    assert!(response.resources.is_empty(), "{:?}", names(&response));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_changes_is_pushed() {
    let plane = Plane::start().await;
    let token = token(&plane.tokens(), "a", "gateway", "istio-ca", SystemTime::now());
    let mut stream = plane.delta(Some(&token)).await;
    let response = ask(&mut stream, "a").await;
    assert!(response.resources.is_empty(), "there is none yet: {:?}", names(&response));
    let mut seen = Vec::new();
    for _ in 0..2 {
        plane.write("secrets.yaml", &secrets());
        let response = soon("a push", stream.next()).await.unwrap();
        assert_eq!(response.type_url, SECRET);
        assert_eq!(names(&response), [NAMES[0], NAMES[2], NAMES[3]]);
        let secret = response.resources[0].resource.as_ref().unwrap();
        seen.push(Secret::decode(&secret.value[..]).unwrap());
    }
    assert_ne!(seen[0], seen[1]);
}
