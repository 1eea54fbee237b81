use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioExecutor;
use pki::key::PrivateKey;
use runtime::tasks::Tasks;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An HTTPS server whose certificate nobody signed; it answers with the status
/// that the path says.
async fn https(tasks: &Tasks) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["other".into()]).unwrap().self_signed(&key).unwrap();
    let (pem, key) = (certificate.pem(), PrivateKey::from_pem(&key.serialize_pem()).unwrap());
    let config = pki::verify::server_config(&pem, &key, &pem, &[b"http/1.1"]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = tasks.clone();
    tasks.spawn("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let answer = service_fn(|request: Request<Incoming>| async move {
                let status = request.uri().path().trim_start_matches('/').parse::<u16>().unwrap();
                Response::builder().status(status).body(Full::<Bytes>::default())
            });
            let server = hyper::server::conn::http1::Builder::new();
            connections.spawn("connection", server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

/// A health service: `good` serves, all others do not.
async fn health(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = tasks.clone();
    tasks.spawn("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let is_check = request.uri().path() == "/grpc.health.v1.Health/Check";
                let question = request.into_body().collect().await.unwrap().to_bytes();
                let status = if question.ends_with(b"good") { 1 } else { 2 };
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", if is_check { "0" } else { "12" }.parse().unwrap());
                let frames = [
                    Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![
                        0, 0, 0, 0, 2, 8, status,
                    ]))),
                    Ok(Frame::trailers(trailers)),
                ];
                let body = StreamBody::new(tokio_stream::iter(frames));
                Response::builder().header("content-type", "application/grpc").body(body)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn("connection", server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

#[tokio::test]
async fn https_is_asked_without_a_look_at_the_certificate() {
    let tasks = Tasks::new();
    let address = https(&tasks).await;
    let probe = |path: &str| json!({"httpGet": {"scheme": "HTTPS", "path": path}});
    ask(&probe("/200"), address).await.unwrap();
    ask(&probe("/302"), address).await.unwrap();
    assert!(ask(&probe("/503"), address).await.unwrap_err().to_string().starts_with("503"));
    assert!(ask(&json!({"httpGet": {"path": "/200"}}), address).await.is_err());
}

#[tokio::test]
async fn grpc_is_asked_for_the_status_of_a_service() {
    let tasks = Tasks::new();
    let address = health(&tasks).await;
    ask(&json!({"grpc": {"service": "good"}}), address).await.unwrap();
    let error = ask(&json!({"grpc": {}}), address).await.unwrap_err();
    assert_eq!(error.to_string(), "the service's status is 2");
}
