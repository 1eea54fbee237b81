//! Servers outside that decide, by HTTP and by gRPC.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use istio_tests::mesh::Mesh;
use istio_tests::netns;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::SETTINGS;
use super::table::run;

/// Ports of the servers: one for each protocol.
const PORTS: [u16; 2] = [9100, 9101];
/// Lets policies of one workload ask several servers.
const SEVERAL: &str = "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS";
/// The media type of gRPC.
const GRPC: &str = "application/grpc";

pub(crate) fn decides(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let network = mesh.client.clone();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            netns::within(&network, || async {
                tokio::select! {
                    _ = stopped => Ok(()),
                    served = serve() => served,
                }
            })
        });
        let result = tables(mesh);
        stop.send(()).ok();
        let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.and(served)
    })
}

fn tables(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, include_str!("../../../data/cases/secure/outside.yaml"))?;
    mesh.istiod.env.push((SEVERAL, "true"));
    mesh.set(SETTINGS)?;
    let result = run(mesh, include_str!("../../../data/cases/secure/outside-several.yaml"));
    mesh.istiod.env.retain(|(name, _)| *name != SEVERAL);
    mesh.set(SETTINGS)?;
    result
}

async fn serve() -> anyhow::Result<()> {
    let mut servers = JoinSet::new();
    for port in PORTS {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let service = hyper::service::service_fn(decide);
                    let builder = Builder::new(TokioExecutor::new());
                    // Its end is not an answer's.
                    builder.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
    }
    servers.join_all().await;
    Ok(())
}

/// What a server says: of requests by a header of its own (`x-ext-authz` for
/// HTTP, `x-grpc` for gRPC), of connections by who opened them.
async fn decide(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    if head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes())) {
        let message = frame(&check(&body));
        let trailers = std::future::ready(Some(Ok(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]))));
        *response.body_mut() = Full::new(message).with_trailers(trailers).boxed();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    } else if head.headers.get("x-ext-authz").is_some_and(|value| value == "allow") {
        response.headers_mut().insert("x-decided", HeaderValue::from_static("http"));
    } else {
        *response.status_mut() = StatusCode::FORBIDDEN;
        response.headers_mut().insert("x-why", HeaderValue::from_static("http"));
    }
    Ok(response)
}

/// The answer of `envoy.service.auth.v3.Authorization/Check` to a message.
fn check(request: &[u8]) -> Vec<u8> {
    let has = |part: &[u8]| request.windows(part.len()).any(|window| window == part);
    // A map's entry: the key, and a value of five bytes.
    let is_good = if has(b":path") { has(b"x-grpc\x12\x05allow") } else { has(b"ns/default/sa/a") };
    if is_good {
        let header = [field(1, b"x-decided"), field(2, b"grpc")].concat();
        let ok = field(2, &field(1, &header));
        [field(1, b""), field(3, &ok)].concat()
    } else {
        // PERMISSION_DENIED, and the status 403.
        [field(1, b"\x08\x07"), field(2, &field(1, b"\x08\x93\x03"))].concat()
    }
}

/// A field of bytes; they are few.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[number << 3 | 2, length], bytes].concat()
}

/// A message as gRPC sends it.
fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat().into()
}
