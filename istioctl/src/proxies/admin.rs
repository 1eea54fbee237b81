//! Pages of HTTP: Envoy's admin port, istiod's monitoring port.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;

use super::{Connection, Mesh, Proxy};

/// Longest wait for a connection.
pub const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for an answer: dumps may be large.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of an answer at most.
const LONGEST: usize = 256 << 20;
/// Letters of an answer that tells of a failure.
const TOLD: usize = 1000;

/// The admin pages of a proxy.
#[derive(Debug)]
pub struct Admin<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) proxy: Proxy,
    pub(super) port: u16,
}

impl Admin<'_> {
    /// The text of a page.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask(Method::GET, path).await
    }

    /// Changes something; the text is what is told of it.
    ///
    /// # Errors
    /// When Envoy does not answer, or refuses.
    pub async fn post(&self, path: &str) -> anyhow::Result<String> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<String> {
        let Self { mesh, proxy, port } = self;
        let answer = async {
            let connection = mesh.connect(proxy, *port).await?;
            exchange(connection, method, path).await
        };
        answer.await.with_context(|| {
            format!("failed to execute command on {proxy} sidecar: is its Envoy running, with the admin port {port}?")
        })
    }
}

/// Asks for a page over a connection.
///
/// # Errors
/// When there is no answer, or one that is no success.
pub async fn exchange(connection: Connection, method: Method, path: &str) -> anyhow::Result<String> {
    let (status, text) = send(connection, method, path, Bytes::new()).await?;
    if !status.is_success() {
        bail!("/{path}: {status}: {}", told(&text));
    }
    Ok(text)
}

/// What a page says of a failure: others may say a lot.
fn told(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Sends a body to a page over a connection, and waits for the answer.
///
/// # Errors
/// When there is no answer.
pub async fn send(
    connection: Connection,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    let request = Request::builder()
        .method(method)
        .uri(format!("/{path}"))
        .header(http::header::HOST, "localhost")
        .body(Full::new(body))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body =
            body.map_err(|why| anyhow!("/{path}: {why}; at most {LONGEST} bytes are read"))?.to_bytes();
        let text = String::from_utf8(body.into()).context("the answer is no text")?;
        anyhow::Ok((status, text))
    };
    let both = async {
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection drives the exchange, and may end before the answer is read.
            ended = connection => { ended?; exchange.await }
        }
    };
    tokio::time::timeout(ANSWER, both)
        .await
        .with_context(|| format!("no answer in {} s", ANSWER.as_secs()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_a_few_lines() {
        assert_eq!(told(" no such page\n"), "no such page");
        assert_eq!(told(&"ü".repeat(2000)), "ü".repeat(TOLD) + " ...");
    }
}
