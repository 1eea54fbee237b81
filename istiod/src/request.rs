//! `request`: one HTTP request to the debug pages of the istiod beside this program.
//! Prints the body and nothing else, because programs read it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::tasks::Tasks;
use tokio::net::TcpStream;

use crate::config::args::Request;

/// Longest wait for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the request to the monitoring port of this machine; the answer's body.
///
/// # Errors
/// When there is none, or it says that something is wrong.
pub async fn run(args: &Request) -> anyhow::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, names::port::ISTIOD_MONITORING));
    let answer = tokio::time::timeout(TIMEOUT, send(args, address)).await;
    answer.map_err(|_| anyhow!("no answer of {address} within {TIMEOUT:?}"))?
}

async fn send(args: &Request, address: SocketAddr) -> anyhow::Result<String> {
    let method: Method = args.method.parse().with_context(|| format!("method {:?}", args.method))?;
    let path = format!("/{}", args.path.strip_prefix('/').unwrap_or(&args.path));
    let body = args.body.first().cloned().unwrap_or_default();
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("{address}: does istiod run here?"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let tasks = Tasks::new();
    tasks.spawn("request", async move { drop(connection.await) });
    let request = http::Request::builder().method(method).uri(&path).header(HOST, address.to_string());
    let request = request.body(Full::new(Bytes::from(body))).with_context(|| format!("path {path:?}"))?;
    let answer = sender.send_request(request).await.with_context(|| format!("answer of {address}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.with_context(|| format!("answer of {address}"))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if status.as_u16() > 399 && status != StatusCode::NOT_FOUND {
        bail!("received unsuccessful status code {}: {text}", status.as_u16());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(code: u16, path: &str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        runtime::http::serve(&tasks, "pages", listener, move |request, _| async move {
            let text = format!("{} {}", request.method(), request.uri());
            runtime::http::text(StatusCode::from_u16(code).unwrap(), text)
        });
        let args = Request { method: "POST".into(), path: path.into(), body: vec!["x".into()] };
        send(&args, address).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_body_is_all_that_is_told() {
        assert_eq!(answered(200, "debug/syncz?a=b").await.unwrap(), "POST /debug/syncz?a=b");
        assert_eq!(answered(404, "/a").await.unwrap(), "POST /a");
        let error = answered(503, "/a").await.unwrap_err();
        assert_eq!(error, "received unsuccessful status code 503: POST /a");
        assert!(answered(200, "a b").await.unwrap_err().contains("path \"/a b\""));
    }
}
