//! Traffic of every kind, and what is counted of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use istio_tests::call::{Call, Scheme};
use istio_tests::echo::stream;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns::within;
use istio_tests::telemetry::scrape::Labels;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::world::{API, BACK_POD, EDGE as EDGE_POD, call, place, repeat};
use super::{
    BACK, BACK_SERVICE, Before, CLOSED, Count, EDGE, End, FRONT, OPENED, RECEIVED, REQUEST_MESSAGES,
    REQUESTS, RESPONSE_MESSAGES, SENT, SHADOW, SHADOW_SERVICE, UNKNOWN, count, ends, http, is_clean,
    security, with,
};

/// The front's calls of the back, as either side labels them.
fn both() -> [(&'static str, Labels); 2] {
    [
        ("front", ends("source", FRONT, BACK, BACK_SERVICE)),
        ("back", ends("destination", FRONT, BACK, BACK_SERVICE)),
    ]
}

/// Counts of the same on both sides.
fn on_both<'a>(of: impl Fn(&Labels) -> Vec<Count>) -> Vec<(&'a str, Vec<Count>)> {
    both().into_iter().map(|(pod, labels)| (pod, of(&labels))).collect()
}

pub(super) fn requests(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back"])?;
    let front = &mesh.pod("front")?.network;
    is_clean(&repeat(&call(Scheme::Http, 80, "/one"), front, 7, 200)?)?;
    is_clean(&repeat(&call(Scheme::Http2, 85, "/two"), front, 5, 200)?)?;
    repeat(&call(Scheme::Http, 80, "/status/404"), front, 3, 404)?;
    before.wait(
        mesh,
        &on_both(|labels| {
            vec![
                count(REQUESTS, &http(labels, "200", "-"), 12),
                count(REQUESTS, &http(labels, "404", "-"), 3),
            ]
        }),
    )
}

/// How a call of gRPC ended.
fn ended(labels: &Labels, status: &str) -> Labels {
    with(&http(labels, "200", "-"), &[("request_protocol", "grpc"), ("grpc_response_status", status)])
}

pub(super) fn grpc(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back"])?;
    let front = &mesh.pod("front")?.network;
    let unary = Call { host: "back:7070".into(), ..call(Scheme::Grpc, 7070, "/istio.test.Echo/Echo") };
    let last = repeat(&unary, front, 4, 200)?;
    ensure!(last.grpc == Some(0), "{last:?}");
    is_clean(&last)?;
    for _ in 0..2 {
        let status = within(front, || exchange(unary.address, 5, "7"))?;
        ensure!(status == "7", "status {status}");
    }
    before.wait(
        mesh,
        &on_both(|labels| {
            vec![
                count(REQUESTS, &ended(labels, "0"), 4),
                count(REQUESTS, &ended(labels, "7"), 2),
                count(REQUEST_MESSAGES, labels, 4 + 2 * 5),
                count(RESPONSE_MESSAGES, labels, 4 + 2 * 5),
            ]
        }),
    )
}

/// Sends messages one after the other, each when the one before has come back; returns the
/// status in the trailers.
async fn exchange(address: SocketAddr, messages: usize, status: &str) -> anyhow::Result<String> {
    let connection = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(connection);
    let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let request = Request::post(format!("http://back:7070{}", stream::PATH))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(stream::STATUS, status)
        .body(StreamBody::new(ReceiverStream::new(body)))?;
    let mut message = BytesMut::from(&[0][..]);
    message.put_u32(4);
    message.put_slice(b"ping");
    let message = message.freeze();
    // The server answers only when it is spoken to.
    frames.send(Ok(Frame::data(message.clone()))).await?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut came = 0;
    let mut sent = 1;
    let mut frames = Some(frames);
    let mut trailers = None;
    while let Some(frame) = tokio::time::timeout(Duration::from_secs(10), body.frame()).await? {
        match frame?.into_data() {
            Ok(data) => came += data.len(),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if came == sent * message.len() {
            match &frames {
                Some(frames) if sent < messages => {
                    sent += 1;
                    frames.send(Ok(Frame::data(message.clone()))).await?;
                }
                _ => frames = None,
            }
        }
    }
    ensure!(came == messages * message.len(), "{came} bytes came back");
    let trailers = trailers.context("no trailers")?;
    Ok(trailers.get("grpc-status").context("no status")?.to_str()?.to_owned())
}

/// A connection, as one side labels it.
fn tcp(labels: &Labels) -> Labels {
    let policy = security(labels);
    let more = [("request_protocol", "tcp"), ("response_flags", "-"), ("connection_security_policy", policy)];
    with(labels, &more)
}

/// What is counted of connections.
fn of_connections(labels: &Labels, number: u32, sent: u32) -> Vec<Count> {
    let labels = tcp(labels);
    vec![
        count(OPENED, &labels, number),
        count(CLOSED, &labels, number),
        count(RECEIVED, &labels, number * 6),
        count(SENT, &labels, sent),
    ]
}

/// The back's connections from a caller, as either side labels them. Connections carry no
/// headers: of the caller the certificate alone tells, of the called the endpoint too.
fn connected(caller: End) -> [Labels; 2] {
    let source = ends("source", caller, BACK, BACK_SERVICE);
    let known = End { namespace: caller.namespace, ..UNKNOWN };
    let principal = format!("spiffe://cluster.local/ns/{}/sa/{}", caller.namespace, caller.workload);
    let mut destination = ends("destination", known, BACK, BACK_SERVICE);
    destination.insert("source_principal".into(), principal);
    [source, destination]
}

pub(super) fn connections(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back"])?;
    let front = &mesh.pod("front")?.network;
    let mut answered = 0;
    for _ in 0..3 {
        let reply = call(Scheme::Tcp, 9090, "").from(front)?;
        answered += u32::try_from(reply.server.to_string().len() + 1)?;
    }
    let [source, destination] = connected(FRONT).map(|labels| of_connections(&labels, 3, answered));
    before.wait(mesh, &[("front", source), ("back", destination)])?;
    // Only endpoints of connections have a name that tells who they are.
    let clusters = mesh.pod("front")?.admin("/clusters")?;
    let name = |port: u16| {
        let begin = format!("outbound|{port}||back.shop.svc.cluster.local::{BACK_POD}:");
        let mut names = clusters.lines().filter_map(|line| {
            let (_, name) = line.strip_prefix(&begin)?.split_once("::hostname::")?;
            Some(name.to_owned())
        });
        names.next().with_context(|| format!("no endpoint of port {port}"))
    };
    ensure!(name(9090)? == "back;shop;back;v1;Kubernetes;back;v1", "{}", name(9090)?);
    ensure!(name(80)?.is_empty(), "{}", name(80)?);
    Ok(())
}

pub(super) fn gateway_of_bytes(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["edge", "back"])?;
    let entry = Call { address: SocketAddr::from((EDGE_POD, 9090)), ..call(Scheme::Tcp, 9090, "") };
    let mut answered = 0;
    for _ in 0..2 {
        answered += u32::try_from(entry.from(&mesh.client)?.server.to_string().len() + 1)?;
    }
    let [source, destination] = connected(EDGE).map(|labels| of_connections(&labels, 2, answered));
    before.wait(mesh, &[("edge", source), ("back", destination)])
}

/// What a workload says of itself, that is none.
fn claim() -> String {
    let text = |value: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
    };
    let fields =
        [("NAME", "admin-1"), ("NAMESPACE", "admins"), ("WORKLOAD_NAME", "admin"), ("CLUSTER_ID", "moon")];
    let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
    base64::engine::general_purpose::STANDARD
        .encode(prost_types::Struct { fields: fields.into_iter().collect() }.encode_to_vec())
}

/// Headers by which a client pretends to be that workload.
fn pretending(claim: String) -> Vec<(String, String)> {
    vec![
        ("x-envoy-peer-metadata".into(), claim),
        (
            "x-envoy-peer-metadata-id".into(),
            "sidecar~10.0.0.1~admin-1.admins~admins.svc.cluster.local".into(),
        ),
    ]
}

pub(super) fn plaintext(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back", "edge"])?;
    let address = SocketAddr::from((BACK_POD, 18080));
    let honest = Call { address, ..call(Scheme::Http, 80, "/plain") };
    is_clean(&repeat(&honest, &mesh.client, 2, 200)?)?;
    for claim in [claim(), "admin;admins;admin;v1;moon;admin;v1;pod;admin-1".into()] {
        let spoofed = Call { headers: pretending(claim), ..honest.clone() };
        is_clean(&repeat(&spoofed, &mesh.client, 2, 200)?)?;
    }
    // An application is no more believed than a client outside.
    let front = &mesh.pod("front")?.network;
    let by_front = Call { headers: pretending(claim()), ..call(Scheme::Http, 80, "/plain") };
    is_clean(&repeat(&by_front, front, 3, 200)?)?;
    // Neither is who asks a gateway.
    let by_gateway = Call {
        address: SocketAddr::from((EDGE_POD, 8080)),
        host: "shop.example".into(),
        headers: pretending(claim()),
        ..call(Scheme::Http, 80, "/plain")
    };
    is_clean(&repeat(&by_gateway, &mesh.client, 2, 200)?)?;
    let plain = ends("destination", UNKNOWN, BACK.plain(), BACK_SERVICE);
    let [(_, front), (_, back)] = both();
    let edge = ends("source", EDGE, BACK, BACK_SERVICE);
    let of_edge = ends("destination", EDGE, BACK, BACK_SERVICE);
    let requests = |labels: &Labels, number| count(REQUESTS, &http(labels, "200", "-"), number);
    before.wait(
        mesh,
        &[
            ("back", vec![requests(&plain, 6), requests(&back, 3), requests(&of_edge, 2)]),
            ("front", vec![requests(&front, 3)]),
            ("edge", vec![requests(&edge, 2)]),
        ],
    )?;
    for pod in ["front", "back", "edge"] {
        let page = mesh.pod(pod)?.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
        let found = page.keys().find(|(_, labels)| labels.values().any(|value| value.contains("admin")));
        ensure!(found.is_none(), "{pod}: {found:?}");
    }
    Ok(())
}

pub(super) fn failures(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back"])?;
    let front = &mesh.pod("front")?.network;
    repeat(&call(Scheme::Http, 80, "/secret"), front, 5, 403)?;
    repeat(&call(Scheme::Http, 80, "/reset"), front, 2, 503)?;
    repeat(&call(Scheme::Http, 80, "/status/503"), front, 2, 503)?;
    let [(_, source), (_, destination)] = both();
    before.wait(
        mesh,
        &[
            (
                "front",
                vec![
                    count(REQUESTS, &http(&source, "403", "-"), 5),
                    count(REQUESTS, &http(&source, "503", "-"), 2),
                    // Tried twice again, and given up.
                    count(REQUESTS, &http(&source, "503", "URX"), 2),
                ],
            ),
            (
                "back",
                vec![
                    count(REQUESTS, &http(&destination, "403", "-"), 5),
                    // The application ended the connection.
                    count(REQUESTS, &http(&destination, "503", "UC"), 2),
                    count(REQUESTS, &http(&destination, "503", "-"), 6),
                ],
            ),
        ],
    )
}

/// Whether a server is asked, and how it is told, by what istiod knows of it.
pub(super) fn exchanged(mesh: &mut Mesh) -> anyhow::Result<()> {
    let peers = |cluster: &str| -> anyhow::Result<Option<String>> {
        let dump = mesh.pod("front")?.admin("/config_dump?resource=dynamic_active_clusters")?;
        let dump: serde_json::Value = serde_json::from_str(&dump)?;
        let all = dump["configs"].as_array().context("clusters")?;
        let found = all.iter().map(|one| &one["cluster"]).find(|one| one["name"] == cluster);
        let istio = &found.context("no such cluster")?["metadata"]["filter_metadata"]["istio"];
        Ok(istio["peers"].as_str().map(str::to_owned))
    };
    let front = &mesh.pod("front")?.network;
    let of_back = "outbound|80||back.shop.svc.cluster.local";
    // Pods tell at their endpoints; one that has the module reads the short form.
    for (form, told) in [("full", "named"), ("short", "short"), ("full", "named")] {
        mesh.write("back.yaml", &place("back", 12, form))?;
        Mesh::wait(told, || {
            let seen = peers(of_back)?;
            ensure!(seen.as_deref() == Some(told), "{seen:?}");
            Ok(())
        })?;
        let before = Before::of(mesh, &["front", "back"])?;
        is_clean(&repeat(&call(Scheme::Http, 80, "/told"), front, 3, 200)?)?;
        before.wait(mesh, &on_both(|labels| vec![count(REQUESTS, &http(labels, "200", "-"), 3)]))?;
    }
    // Of an endpoint that somebody wrote without labels, only the server knows who it is.
    mesh.write(
        "written.yaml",
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: written, namespace: shop}
spec:
  hosts: [written.example]
  addresses: [10.96.3.20]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 18080}]
  endpoints: [{address: 10.77.0.12, serviceAccount: back, labels: {security.istio.io/tlsMode: istio}}]
",
    )?;
    let cluster = "outbound|80||written.example";
    Mesh::wait("the entry", || {
        let seen = peers(cluster)?;
        ensure!(seen.is_none(), "{seen:?}");
        Ok(())
    })?;
    let written = Call {
        address: SocketAddr::from((Ipv4Addr::new(10, 96, 3, 20), 80)),
        host: "written.example".into(),
        ..call(Scheme::Http, 80, "/told")
    };
    Mesh::wait("its listener", || {
        let name = written.from(front)?.server["name"].as_str().map(str::to_owned);
        ensure!(name.as_deref() == Some("back"), "{name:?}");
        Ok(())
    })?;
    let before = Before::of(mesh, &["front", "back"])?;
    is_clean(&repeat(&written, front, 3, 200)?)?;
    let source = ends("source", FRONT, BACK, ("written.example", "written.example", "shop"));
    let destination = ends("destination", FRONT, BACK, BACK_SERVICE);
    let three = |labels: &Labels| vec![count(REQUESTS, &http(labels, "200", "-"), 3)];
    before.wait(mesh, &[("front", three(&source)), ("back", three(&destination))])?;
    mesh.write("written.yaml", "")
}

pub(super) fn mirrored(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front", "back", "shadow"])?;
    repeat(&call(Scheme::Http, 80, "/mirror"), &mesh.pod("front")?.network, 4, 200)?;
    let mut wanted = on_both(|labels| vec![count(REQUESTS, &http(labels, "200", "-"), 4)]);
    let shadow = ends("destination", FRONT, SHADOW, SHADOW_SERVICE);
    wanted.push(("shadow", vec![count(REQUESTS, &http(&shadow, "200", "-"), 4)]));
    before.wait(mesh, &wanted)
}

pub(super) fn gateway(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["edge", "back"])?;
    let to = |host: &str| Call {
        address: SocketAddr::from((EDGE_POD, 8080)),
        host: host.into(),
        ..call(Scheme::Http, 80, "/in")
    };
    is_clean(&repeat(&to("shop.example"), &mesh.client, 5, 200)?)?;
    repeat(&to("other.example"), &mesh.client, 2, 404)?;
    let edge = ends("source", EDGE, BACK, BACK_SERVICE);
    // Nothing that the mesh knows of was asked for.
    let nowhere = ends("source", EDGE.plain(), UNKNOWN, ("unknown", "unknown", "unknown"));
    let back = ends("destination", EDGE, BACK, BACK_SERVICE);
    before.wait(
        mesh,
        &[
            (
                "edge",
                vec![
                    count(REQUESTS, &http(&edge, "200", "-"), 5),
                    count(REQUESTS, &http(&nowhere, "404", "NR"), 2),
                ],
            ),
            ("back", vec![count(REQUESTS, &http(&back, "200", "-"), 5)]),
        ],
    )
}

pub(super) fn outside(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Before::of(mesh, &["front"])?;
    let front = &mesh.pod("front")?.network;
    let to = |address: Ipv4Addr, port: u16, host: &str, scheme| Call {
        address: SocketAddr::from((address, port)),
        host: host.into(),
        ..call(scheme, port, "/out")
    };
    // What the mesh knows of, what it does not, and connections of unknown content.
    is_clean(&repeat(&to(API, 80, "api.example", Scheme::Http), front, 3, 200)?)?;
    is_clean(&repeat(&to(CLIENT, 80, "elsewhere.example", Scheme::Http), front, 2, 200)?)?;
    let reply = to(CLIENT, 19092, "", Scheme::Tcp).from(front)?;
    let answered = u32::try_from(reply.server.to_string().len() + 1)?;
    // An endpoint of a ServiceEntry is a workload of its namespace that istiod tells of.
    let endpoint =
        End { workload: "api-0", namespace: "shop", service: "api-0", cluster: "Kubernetes", ..UNKNOWN };
    let api = ends("source", FRONT.plain(), endpoint, ("api.example", "api.example", "shop"));
    let elsewhere =
        ends("source", FRONT.plain(), UNKNOWN, ("elsewhere.example", "PassthroughCluster", "unknown"));
    let bytes = tcp(&ends("source", FRONT.plain(), UNKNOWN, ("unknown", "PassthroughCluster", "unknown")));
    before.wait(
        mesh,
        &[(
            "front",
            vec![
                count(REQUESTS, &http(&api, "200", "-"), 3),
                count(REQUESTS, &http(&elsewhere, "200", "-"), 2),
                count(OPENED, &bytes, 1),
                count(CLOSED, &bytes, 1),
                count(RECEIVED, &bytes, 6),
                count(SENT, &bytes, answered),
            ],
        )],
    )
}
