//! Clients that no library would make: floods of streams that are taken back,
//! noise in place of messages, claims in headers.

use http_body_util::{BodyExt as _, Full};
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::istio::v1::auth::IstioCertificateRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};
use xds::frame::framed;

use super::plane::{Plane, node};
use super::{CLUSTER, clusters, csr, good, next_of, soon};

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const SIGN: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

// Frames of HTTP/2.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
/// Codes of its errors.
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head, payload.to_vec()].concat()
}

/// The head of a call, each field written out.
fn head(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // `:method: POST`, `:scheme: https`, then `:path`, `:authority` and `content-type`.
    [vec![0x83, 0x87, 0x04], text(path), vec![0x01], text("x"), vec![0x0f, 0x10], text("application/grpc")]
        .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_streams_back_without_end_is_closed() {
    let plane = Plane::start().await;
    let (mut read, mut write) = tokio::io::split(plane.door.tls().await);
    let flood = plane.door.tasks().spawn("flood", async move {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        for stream in (1..40_001).step_by(2) {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &head(DELTA)));
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        // It is closed before all of it is written.
        write.write_all(&bytes).await.ok();
        write
    });
    let mut answer = Vec::new();
    // It may break off.
    soon("the end of the connection", read.read_to_end(&mut answer)).await.ok();
    flood.await.unwrap();
    let mut rest = &answer[..];
    let mut codes = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, next)) = tail.split_at_checked(length) else { break };
        if *kind == GOAWAY {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = next;
    }
    assert_eq!(codes.last(), Some(&ENHANCE_YOUR_CALM), "{codes:?}");
    let mut stream = plane.sotw(Some(&good(&plane))).await;
    stream.send(clusters("")).await;
    next_of(&mut stream, CLUSTER).await;
}

/// Calls a method with that body.
async fn call(plane: &Plane, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    let mut sender = plane.door.connect().await;
    let mut request = http::Request::post(format!("https://istiod.istio-system.svc{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Full::new(body.into()))).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let status = |headers: &http::HeaderMap| Status::from_header_map(headers);
    let trailers = async { status(body.collect().await.ok()?.trailers()?) };
    match status(&head.headers) {
        Some(status) => status,
        None => trailers.await.unwrap_or_else(|| Status::ok("no status")),
    }
}

/// Bytes without meaning, the same each time.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_without_a_token_gets_an_error_and_harms_nobody() {
    let plane = Plane::start().await;
    let mut bodies = vec![Vec::new(), vec![0], vec![0, 0xff, 0xff, 0xff, 0xff], vec![1, 0, 0, 0, 1, 0]];
    for seed in 0..20 {
        let text = noise(seed, 200);
        // As it is, and as the message of a well-formed frame.
        bodies.push([&[0, 0, 0, 0, 200], &text[..]].concat());
        bodies.push(text);
    }
    // A message that is nested deeper than any reader goes.
    let mut nested = vec![0x0a, 0];
    for _ in 0..5000 {
        let length = u32::try_from(nested.len()).unwrap();
        let mut more = vec![0x0a];
        prost::encoding::encode_varint(length.into(), &mut more);
        more.extend(nested);
        nested = more;
    }
    let length = u32::try_from(nested.len()).unwrap().to_be_bytes();
    bodies.push([&[0], &length[..], &nested].concat());
    for path in [DELTA, SOTW, SIGN] {
        for (index, body) in bodies.iter().enumerate() {
            let status = soon(path, call(&plane, path, &[], body.clone())).await;
            assert_ne!(status.code(), Code::Ok, "{path}, {index}");
        }
    }
    assert_eq!(plane.page(plane.running.http, "/ready").await.0, 200);
    let csr = csr("spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
    plane.certificate(Some(&good(&plane)), &csr, 3600).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_only_a_header_claims_is_none() {
    let plane = Plane::start().await;
    let claim = "By=spiffe://cluster.local/ns/istio-system/sa/gateway;\
                 URI=spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
    let ask = DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: CLUSTER.into(),
        ..DeltaDiscoveryRequest::default()
    };
    let csr = csr("spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
    let sign = IstioCertificateRequest { csr, ..IstioCertificateRequest::default() };
    for (path, body) in [(DELTA, framed(&ask)), (SIGN, framed(&sign))] {
        // It comes from this very machine.
        let headers = [("x-forwarded-client-cert", claim)];
        let status = soon(path, call(&plane, path, &headers, body.to_vec())).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
    }
}
