//! istiod in process: what it serves, and above all what it refuses.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "in_process/attacks.rs"]
mod attacks;
#[path = "in_process/conflicts.rs"]
mod conflicts;
#[path = "in_process/deaf.rs"]
mod deaf;
#[path = "in_process/debug_streams.rs"]
mod debug_streams;
#[path = "in_process/handover.rs"]
mod handover;
#[path = "in_process/hostile.rs"]
mod hostile;
#[path = "in_process/pages.rs"]
mod pages;
#[path = "in_process/plane.rs"]
mod plane;
#[path = "in_process/raw.rs"]
mod raw;
#[path = "in_process/refusal.rs"]
mod refusal;
#[path = "in_process/secrets.rs"]
mod secrets;
#[path = "in_process/webhooks.rs"]
mod webhooks;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser as _;
use istiod::auth::local::Issuer;
use istiod::config::args::{Cli, Command};
use istiod::config::env;
use istiod::state_dir::StateDir;
use names::{Namespace, ServiceAccount};
use pki::certificate::Certificate;
use pki::key::{Algorithm, PrivateKey};
use plane::{Plane, node};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3600);
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

fn token(issuer: &Issuer, namespace: &str, account: &str, audience: &str, at: SystemTime) -> String {
    let namespace: Namespace = namespace.parse().unwrap();
    let account: ServiceAccount = account.parse().unwrap();
    issuer.issue(&namespace, &account, audience, HOUR, at).unwrap()
}

fn good(plane: &Plane) -> String {
    token(&plane.tokens(), "default", "bookinfo-reviews", "istio-ca", SystemTime::now())
}

/// Tokens that prove nobody, and what the refusal must say of each.
fn bad_tokens(plane: &Plane) -> Vec<(&'static str, Option<String>, &'static str)> {
    let tokens = plane.tokens();
    let now = SystemTime::now();
    let other = tempfile::tempdir().unwrap();
    let stranger = Issuer::open(&StateDir::open(other.path()).unwrap()).unwrap();
    let make = |audience: &str, at| token(&tokens, "default", "bookinfo-reviews", audience, at);
    let valid = make("istio-ca", now);
    // A letter in the middle of the signature: those at the end may not count.
    let (head, signature) = valid.rsplit_once('.').unwrap();
    let flipped = if &signature[20..21] == "A" { "B" } else { "A" };
    let forged = format!("{head}.{}{flipped}{}", &signature[..20], &signature[21..]);
    vec![
        ("expired", Some(make("istio-ca", now - 2 * HOUR)), "expired"),
        ("from the future", Some(make("istio-ca", now + 2 * HOUR)), "not valid yet"),
        ("another audience", Some(make("vault", now)), "audience"),
        (
            "another issuer",
            Some(token(&stranger, "default", "bookinfo-reviews", "istio-ca", now)),
            "not signed by this istiod",
        ),
        ("a forged signature", Some(forged), "not signed by this istiod"),
        ("garbage", Some("garbage".into()), "token"),
        ("three parts of garbage", Some("a.b.c".into()), "token"),
        ("empty", Some(String::new()), "token"),
        ("very long", Some("x".repeat(10_000)), "token"),
        ("none", None, "neither a token nor a client certificate"),
    ]
}

fn csr(identity: &str) -> String {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    pki::csr::request(&key, &identity.parse().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_prove_nobody_get_neither_certificate_nor_configuration() {
    let plane = Plane::start().await;
    let csr = csr("spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
    for (name, token, says) in bad_tokens(&plane) {
        let status = plane.certificate(token.as_deref(), &csr, 3600).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
        assert!(status.message().contains(says), "{name}: {status}");

        let mut stream = plane.sotw(token.as_deref()).await;
        stream.send(clusters("")).await;
        let status = soon(name, stream.next()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
        assert!(!status.message().contains("eyJ"), "no token in messages: {status}");
    }
    // And the good one is good.
    assert!(plane.certificate(Some(&good(&plane)), &csr, 3600).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_for_the_caller_whatever_the_request_says() {
    let plane = Plane::start().await;
    let csr = csr("spiffe://cluster.local/ns/kube-system/sa/admin");
    let response = plane.certificate(Some(&good(&plane)), &csr, 600).await.unwrap();
    let leaf = &Certificate::all_from_pem(&response.cert_chain[0]).unwrap()[0];
    assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/default/sa/bookinfo-reviews"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificate_requests_are_refused_with_a_reason() {
    let plane = Plane::start().await;
    let token = good(&plane);
    let valid = csr("spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
    for (name, csr, says) in [
        ("a signature of another key", tampered(&valid), "signature"),
        ("RSA with 1024 bits", include_str!("data/rsa-1024.csr").to_owned(), "1024"),
        ("a megabyte of noise", noise(1 << 20), "bytes"),
        ("a kilobyte of noise", noise(1 << 10), "PEM"),
        ("nothing", String::new(), "PEM"),
        ("half of one", valid[..valid.len() / 2].to_owned(), "PEM"),
    ] {
        let status = soon(name, plane.certificate(Some(&token), &csr, 3600)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status}");
        assert!(status.message().contains(says), "{name}: {status}");
    }
    let year = 365 * 24 * 3600;
    let status = plane.certificate(Some(&token), &valid, year).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("greater than the max allowed TTL"), "{status}");
    assert!(plane.certificate(Some(&token), &valid, 3600).await.is_ok(), "it serves on");
}

/// The request with one bit of its signature, the end of the DER, turned.
fn tampered(pem: &str) -> String {
    let lines: Vec<&str> = pem.lines().collect();
    let mut body: Vec<char> = lines[1..lines.len() - 1].concat().chars().collect();
    let at = body.len() - 10;
    body[at] = if body[at] == 'A' { 'B' } else { 'A' };
    format!("{}\n{}\n{}\n", lines[0], body.into_iter().collect::<String>(), lines[lines.len() - 1])
}

fn noise(length: u32) -> String {
    (0..u64::from(length)).map(|index| char::from(b' ' + u8::try_from(index * index % 90).unwrap())).collect()
}

fn clusters(nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: CLUSTER.into(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_know_istiod_by_its_address() {
    let hosts = "127.0.0.1,[::1]:15012";
    let plane = Plane::start_with(|name| (name == "ISTIOD_CUSTOM_HOST").then(|| hosts.to_owned())).await;
    for (host, is_known) in [("127.0.0.1", true), ("::1", true), ("127.0.0.2", false)] {
        let config = pki::verify::client_config(&plane.running.roots, None, &[b"h2"]).unwrap();
        let stream = TcpStream::connect(plane.running.secure_grpc).await.unwrap();
        let name = ServerName::try_from(host).unwrap();
        assert!(matches!(name, ServerName::IpAddress(_)));
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(connected.is_ok(), is_known, "{host}: {connected:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_for_the_workload_of_its_token() {
    let plane = Plane::start().await;
    let now = SystemTime::now();
    for (namespace, account) in [("other", "bookinfo-reviews"), ("default", "bookinfo-ratings")] {
        let token = token(&plane.tokens(), namespace, account, "istio-ca", now);
        let mut stream = plane.delta(Some(&token)).await;
        let mut node = node("reviews-v1", "10.77.0.21").unwrap();
        let text = |value: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
        };
        let fields = [("NAMESPACE", "default"), ("SERVICE_ACCOUNT", "bookinfo-reviews")];
        let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
        node.metadata = Some(prost_types::Struct { fields: fields.into_iter().collect() });
        stream
            .send(DeltaDiscoveryRequest {
                node: Some(node),
                type_url: CLUSTER.into(),
                ..DeltaDiscoveryRequest::default()
            })
            .await;
        let status = soon("a refusal", stream.next()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("matched default/bookinfo-reviews"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_node_is_told_what_is_missing() {
    let plane = Plane::start().await;
    let token = good(&plane);
    let mut stream = plane.sotw(Some(&token)).await;
    stream.send(DiscoveryRequest { node: None, ..clusters("") }).await;
    let status = soon("a refusal", stream.next()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("node"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_type_and_a_garbage_nonce_disturb_nobody() {
    let plane = Plane::start().await;
    let token = good(&plane);
    let mut stream = plane.sotw(Some(&token)).await;
    stream
        .send(DiscoveryRequest { type_url: "type.googleapis.com/no.such.Type".into(), ..clusters("") })
        .await;
    stream.send(clusters("")).await;
    let first = next_of(&mut stream, CLUSTER).await;
    // Overtaken or made up: no answer to that.
    stream.send(clusters("garbage")).await;
    stream.send(clusters(&first.nonce)).await;
    // A change reaches the stream as ever.
    let text = plane.read("reviews-destination.yaml").replace("100", "99");
    plane.write("reviews-destination.yaml", &text);
    let second = next_of(&mut stream, CLUSTER).await;
    assert_ne!(first.nonce, second.nonce);
    assert_ne!(first.version_info, second.version_info);
    let metrics = plane.page(plane.running.monitoring, "/metrics").await.1;
    assert!(metrics.contains("pilot_xds_expired_nonce"), "{metrics}");
}

async fn next_of(
    stream: &mut plane::Exchange<DiscoveryRequest, DiscoveryResponse>,
    type_url: &str,
) -> DiscoveryResponse {
    loop {
        let response = soon(type_url, stream.next()).await.unwrap();
        if response.type_url == type_url {
            return response;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_come_in_the_order_of_their_dependencies_and_refusals_are_shown() {
    let plane = Plane::start().await;
    let token = token(&plane.tokens(), "default", "bookinfo-productpage", "istio-ca", SystemTime::now());
    let mut stream = plane.sotw(Some(&token)).await;
    let version = "outbound|9080|v1|reviews.default.svc.cluster.local";
    let ask = |type_url: &str, nonce: &str| DiscoveryRequest {
        node: node("productpage-v1", "10.77.0.11"),
        type_url: type_url.into(),
        response_nonce: nonce.into(),
        resource_names: match type_url {
            ENDPOINT => vec![version.into(), version.replace("v1", "v4")],
            ROUTE => vec!["9080".into()],
            _ => Vec::new(),
        },
        ..DiscoveryRequest::default()
    };
    for type_url in [CLUSTER, ENDPOINT, LISTENER, ROUTE] {
        stream.send(ask(type_url, "")).await;
        let response = next_of(&mut stream, type_url).await;
        stream.send(ask(type_url, &response.nonce)).await;
    }
    // A new subset with a pod, a service with a port of its own, and a route: all four types change.
    let bookinfo = plane.read("bookinfo.yaml").replace("version: v3", "version: v4");
    let tcp = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: default}\nspec:\n  \
               clusterIP: 10.96.0.99\n  ports: [{name: tcp, port: 5432}]\n";
    plane.write("bookinfo.yaml", &format!("{bookinfo}{tcp}"));
    plane.write("reviews-destination.yaml", &plane.read("reviews-destination.yaml").replace("v3", "v4"));
    plane.write("reviews-route.yaml", &plane.read("reviews-route.yaml").replace("subset: v1", "subset: v4"));
    let mut order = Vec::new();
    while order.len() < 4 {
        let response = soon("a push", stream.next()).await.unwrap();
        stream.send(ask(&response.type_url, &response.nonce)).await;
        if !order.contains(&response.type_url) {
            order.push(response.type_url);
        }
    }
    assert_eq!(order, [CLUSTER, ENDPOINT, LISTENER, ROUTE]);
    // What nobody uses any more is removed after that.
    while let Ok(response) = timeout(Duration::from_millis(500), stream.next()).await {
        let response = response.unwrap();
        stream.send(ask(&response.type_url, &response.nonce)).await;
    }

    // A refusal is shown with its reason, and the next push comes all the same.
    let text = plane.read("reviews-destination.yaml");
    plane.write("reviews-destination.yaml", &text.replace("100", "50"));
    let response = next_of(&mut stream, CLUSTER).await;
    let mut refusal = ask(CLUSTER, &response.nonce);
    refusal.error_detail = Some(proto::google::rpc::Status {
        code: 3,
        message: "no such thing".into(),
        ..proto::google::rpc::Status::default()
    });
    stream.send(refusal).await;
    soon("the refusal at syncz", async {
        while !plane.page(plane.running.monitoring, "/debug/syncz").await.1.contains("no such thing") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    plane.write("reviews-destination.yaml", &text.replace("100", "51"));
    next_of(&mut stream, CLUSTER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_is_named_with_its_line() {
    let plane = Plane::start().await;
    let mut stream = plane.sotw(Some(&good(&plane))).await;
    stream.send(clusters("")).await;
    let first = next_of(&mut stream, CLUSTER).await;
    stream.send(clusters(&first.nonce)).await;

    let text = plane.read("reviews-destination.yaml");
    let half = &text[..text.find("maxConnections").unwrap() + 8];
    let wrong = text.replace("maxConnections: 100", "maxConnections: many");
    for broken in [half, &wrong, "kind: [", "\u{0}\u{1}"] {
        plane.write("reviews-destination.yaml", broken);
        let page = soon(&format!("the problem of {broken:?}"), async {
            loop {
                let page = plane.page(plane.running.monitoring, "/debug/sourcez").await.1;
                let page: serde_json::Value = serde_json::from_str(&page).unwrap();
                if page["problems"].as_array().is_some_and(|problems| !problems.is_empty()) {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let problems = page["problems"].to_string();
        assert!(problems.contains("reviews-destination.yaml:"), "{problems}");
        let kept =
            page["objects"].as_array().unwrap().iter().any(|object| object["name"] == "reviews-destination");
        assert!(kept, "the last good one stays: {page}");
        // Whole again, for the next one; the problem goes.
        plane.write("reviews-destination.yaml", &text);
        soon("no problem", async {
            while !plane.page(plane.running.monitoring, "/debug/sourcez").await.1.contains("\"problems\": []")
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    // Nothing of all that reached the proxy.
    assert!(timeout(Duration::from_millis(300), stream.next()).await.is_err());
    let many = {
        plane.write("reviews-destination.yaml", &wrong);
        soon("the field", async {
            loop {
                let page = plane.page(plane.running.monitoring, "/debug/sourcez").await.1;
                if page.contains("maxConnections") {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    };
    assert!(many.contains("reviews-destination.yaml:12"), "{many}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plaintext_port_is_closed_unless_asked_for_and_pages_answer() {
    let Command::Discovery(args) =
        Cli::try_parse_from(["istiod", "discovery", "--config-dir", "."]).unwrap().command
    else {
        panic!()
    };
    assert_eq!(env::resolve(&args, |_| None).unwrap().plain_grpc, None);
    let plane = Plane::start().await;
    assert_eq!(plane.page(plane.running.http, "/ready").await.0, 200);
    assert_eq!(plane.page(plane.running.monitoring, "/nowhere").await.0, 404);
    let stop = plane.running.stop();
    soon("the end", stop).await;
}
