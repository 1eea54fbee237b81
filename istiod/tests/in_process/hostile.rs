//! Clients that take more than their share.

use std::sync::Arc;

use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::plane::{Plane, node};
use super::{CLUSTER, ENDPOINT, clusters, good, next_of, soon};

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    let plane = Plane::start().await;
    let address = plane.running.secure_grpc;
    let mut idle = Vec::new();
    for _ in 0..256 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let config = pki::verify::client_config(&plane.running.roots, None, &[b"h2"]).unwrap();
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    soon("a client that speaks", connected).await.unwrap();
    // It did not wait until the time of the others was over: one of them made room.
    let is_open = |stream: &&TcpStream| {
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert_eq!(idle.iter().filter(is_open).count(), 255);
    // The same address gets through too.
    let mut stream = plane.sotw(Some(&good(&plane))).await;
    stream.send(clusters("")).await;
    next_of(&mut stream, CLUSTER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_without_bounds_ends_its_stream_only() {
    let plane = Plane::start().await;
    let token = good(&plane);
    let ask = |names: std::ops::Range<usize>, length: usize| DeltaDiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: ENDPOINT.into(),
        resource_names_subscribe: names.map(|index| format!("{index:0length$}")).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    // One message that is too large.
    let mut stream = plane.delta(Some(&token)).await;
    stream.send(ask(0..50_000, 100)).await;
    let status = soon("a refusal", stream.next()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("larger than 4194304 bytes"), "{status}");
    assert!(status.message().contains("subscribe to fewer"), "{status}");

    // Too many names in several messages.
    let mut stream = plane.delta(Some(&token)).await;
    stream.send(DeltaDiscoveryRequest { type_url: CLUSTER.into(), ..ask(0..0, 0) }).await;
    soon("clusters", stream.next()).await.unwrap();
    for part in 0..3 {
        stream.send(ask(part * 40_000..(part + 1) * 40_000, 1)).await;
    }
    let status = loop {
        if let Err(status) = soon("a refusal", stream.next()).await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(
        status.message().contains("EDS") && status.message().contains("at most 100000 names"),
        "{status}"
    );

    let mut stream = plane.sotw(Some(&token)).await;
    stream.send(clusters("")).await;
    next_of(&mut stream, CLUSTER).await;
}

/// A `ClientHello` of a version that offers suites of all versions.
fn hello(version: u16) -> Vec<u8> {
    // ECDHE with ECDSA or RSA: AES-GCM for TLS 1.2, AES-CBC for all before.
    let suites = [0xc02b_u16, 0xc02f, 0xc009, 0xc013, 0x002f];
    // Curves, the form of points, and signatures.
    let extensions: [&[u8]; 3] =
        [&[0, 10, 0, 6, 0, 4, 0, 29, 0, 23], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]];
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let body = [
        version.to_be_bytes().to_vec(),
        vec![7; 32],
        vec![0],
        with_length(&suites.map(u16::to_be_bytes).concat()),
        vec![1, 0],
        with_length(&extensions.concat()),
    ]
    .concat();
    let message = [vec![1, 0], with_length(&body)].concat();
    [vec![22, 3, 1], with_length(&message)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_of_tls_are_refused() {
    let plane = Plane::start().await;
    let answer = async |version| {
        let mut stream = TcpStream::connect(plane.running.secure_grpc).await.unwrap();
        stream.write_all(&hello(version)).await.unwrap();
        let mut head = [0; 7];
        soon("an answer", stream.read_exact(&mut head)).await.unwrap();
        head
    };
    // TLS 1.2 goes on with a handshake; before it is a fatal alert: protocol_version.
    assert_eq!(answer(0x0303).await[0], 22);
    for version in [0x0300, 0x0301, 0x0302] {
        let head = answer(version).await;
        assert_eq!((head[0], &head[5..]), (21, &[2, 70][..]), "{version:#x}: {head:?}");
    }
}
