//! Short answers of metadata servers: plain HTTP, one connection each.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read, in bytes; a description of a machine has a few KiB.
const MAX_BODY: usize = 256 << 10;

/// The body of the answer to a request; `None` unless it is a success.
///
/// The caller sets the time limit: dropping the future ends the connection.
pub async fn text(
    server: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Option<String> {
    let stream = TcpStream::connect(server).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.ok()?;
    let mut request = Request::builder().method(method).uri(path).body(Empty::new()).ok()?;
    let mut all = HeaderMap::new();
    all.insert(HOST, HeaderValue::from_str(&server.ip().to_string()).ok()?);
    for (name, value) in headers {
        all.insert(*name, HeaderValue::from_str(value).ok()?);
    }
    *request.headers_mut() = all;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.ok()?.to_bytes();
        String::from_utf8(body.into()).ok()
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
