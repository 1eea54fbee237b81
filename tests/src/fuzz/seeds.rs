//! What each target expects, nearly: where tests and long searches begin.

use std::time::{Duration, SystemTime};

use pki::csr::{self, Csr};
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds::frame::framed;

use super::worlds;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Objects of recorded meshes.
pub(super) fn objects() -> Vec<Vec<u8>> {
    let text = |objects: &[serde_json::Value]| {
        objects.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n").into_bytes()
    };
    worlds().iter().map(|world| text(&world.objects)).collect()
}

pub(super) fn mesh_configs() -> Vec<Vec<u8>> {
    texts(&[
        "trustDomain: td\ntrustDomainAliases: [a, b]\nrootNamespace: istio-system\n\
         outboundTrafficPolicy: {mode: REGISTRY_ONLY}\ndefaultConfig: {concurrency: 2, drainDuration: 45s}\n",
        "extensionProviders:\n- {name: a, envoyExtAuthzGrpc: {service: a.b.svc, port: 9000, timeout: 1s}}\n\
         - {name: o, opentelemetry: {service: o, port: 4317}}\n",
        "serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*.a']}]\nenableAutoMtls: false\n",
    ])
}

pub(super) fn nodes() -> Vec<Vec<u8>> {
    let id = "sidecar~10.1.1.1~web-1.shop~shop.svc.cluster.local".to_owned();
    let node = Node { id, cluster: "web.shop".into(), ..Node::default() };
    let (long, none) = (Node { id: "~".repeat(64), ..Node::default() }, Node::default());
    [node, long, none].iter().map(prost::Message::encode_to_vec).collect()
}

/// Requests as [`super::discovery_request`] takes them: each behind its length.
pub(super) fn requests() -> Vec<Vec<u8>> {
    let sotw = DiscoveryRequest {
        type_url: CLUSTER.into(),
        resource_names: vec!["a".into(), "*".into()],
        response_nonce: "n1".into(),
        ..DiscoveryRequest::default()
    };
    let delta = DeltaDiscoveryRequest {
        type_url: CLUSTER.into(),
        resource_names_subscribe: vec!["a".into(), "*".into()],
        resource_names_unsubscribe: vec!["a".into()],
        initial_resource_versions: [("a".to_owned(), "1".to_owned())].into(),
        ..DeltaDiscoveryRequest::default()
    };
    let led = |body: Vec<u8>| {
        let one = [&[u8::try_from(body.len()).unwrap_or(u8::MAX)][..], &body].concat();
        one.repeat(2)
    };
    vec![led(sotw.encode_to_vec()), led(delta.encode_to_vec())]
}

pub(super) fn key_sets() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"keys":[{"kty":"oct","k":"AQAB"},{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256"}]}"#,
        r#"{"keys":[{"kty":"EC","crv":"P-256","x":"mD4xN-Fj4TVpI5X2E8oeXJuE_dOuMrfmQEVnr2QsiWU","y":"aAWrZwhJhEllOwjetSmd_pZACAOY2nI8tPd6p3wsY2s"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    ])
}

pub(super) fn patches() -> Vec<Vec<u8>> {
    let values = [
        (
            10,
            r#"{"name":"a","connect_timeout":"1.5s","lbPolicy":"MAGLEV","circuit_breakers":{"thresholds":[{"max_connections":7}]},"metadata":{"filter_metadata":{"a":{"b":[1,null,"x"]}}}}"#,
        ),
        (
            7,
            r#"{"name":"envoy.filters.http.lua","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua","inline_code":"x"}}"#,
        ),
        (
            1,
            r#"{"name":"l","address":{"socket_address":{"address":"::","port_value":1}},"per_connection_buffer_limit_bytes":5}"#,
        ),
        (6, r#"{"match":{"prefix":"/"},"route":{"cluster":"a","timeout":"0s"}}"#),
    ];
    values.iter().map(|(kind, json)| [&[*kind][..], json.as_bytes()].concat()).collect()
}

pub(super) fn names() -> Vec<Vec<u8>> {
    texts(&[
        IDENTITY,
        "sidecar~10.1.1.1~web-1.shop~shop.svc.cluster.local",
        "outbound|80|v1|web.shop.svc.cluster.local",
        "inbound|8080||",
        "outbound_.80_.v1_.web.shop.svc.cluster.local",
        "*.shop.svc.cluster.local",
        "10.0.0.0/8",
        "fd00::/64",
        CLUSTER,
    ])
}

/// A chain, a request and a key, as PEM and as they are.
pub(super) fn certificates() -> Vec<Vec<u8>> {
    let make = || -> Option<Vec<Vec<u8>>> {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let (issuer, _) = Issuer::self_signed("cluster.local", day, now).ok()?;
        let key = PrivateKey::generate(Algorithm::EcdsaP256).ok()?;
        let identity = IDENTITY.parse().ok()?;
        let request = csr::request(&key, &identity).ok()?;
        let chain = issuer.issue(&Csr::of_key(&key).ok()?, &[San::Spiffe(identity)], day, now).ok()?;
        let pem = chain.concat();
        let der = pki::certificate::Certificate::all_from_pem(&pem).ok()?.first()?.der().to_vec();
        Some(vec![pem.into_bytes(), der, request.into_bytes(), key.to_pkcs8_pem().as_bytes().to_vec()])
    };
    make().unwrap_or_default()
}

/// Streams as [`super::parsers::frames`] takes them: behind the size of their pieces.
pub(super) fn frames() -> Vec<Vec<u8>> {
    let any = Any { type_url: CLUSTER.into(), value: vec![1, 2, 3].into() };
    let sotw = DiscoveryResponse {
        version_info: "1".into(),
        resources: vec![any.clone(), any.clone()],
        type_url: CLUSTER.into(),
        nonce: "n".into(),
        ..DiscoveryResponse::default()
    };
    let resource = Resource { name: "a".into(), resource: Some(any), ..Resource::default() };
    let delta = DeltaDiscoveryResponse {
        resources: vec![resource],
        type_url: CLUSTER.into(),
        nonce: "n".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let refusal = DiscoveryRequest {
        type_url: CLUSTER.into(),
        response_nonce: "n".into(),
        error_detail: Some(proto::google::rpc::Status {
            code: 3,
            message: "no".into(),
            ..Default::default()
        }),
        ..DiscoveryRequest::default()
    };
    [framed(&sotw), framed(&delta), framed(&refusal)]
        .iter()
        .map(|frame| [&[3][..], frame, frame].concat())
        .collect()
}

pub(super) fn settings() -> Vec<Vec<u8>> {
    texts(&[
        "networks: {n: {endpoints: [{fromCidr: 10.0.0.0/8}, {fromRegistry: c}], gateways: [{address: 1.2.3.4, port: 15443}]}}\n",
        "concurrency: 2\ndrainDuration: 45s\ntracing: {zipkin: {address: 'a:1'}, sampling: 1.5}\nproxyMetadata: {A: b}\n",
    ])
}

pub(super) fn expressions() -> Vec<Vec<u8>> {
    texts(&[
        r"^(?i)a[b-d]{1,3}(x|y)*\p{L}+[[:alpha:]]$",
        "response.code >= 400 && (request.headers['a'] == \"b\" || has(request.auth)) ? 1u : -2.5e3",
        "/a/{*}/b/{**}",
        "*.example.com",
        "app.kubernetes.io/name",
    ])
}
