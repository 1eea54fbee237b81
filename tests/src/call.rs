//! One call of a case table: by any protocol that a client may speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::verify::{Proof, unverified_client_config};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::netns::within;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Scheme {
    /// HTTP/1.1.
    #[serde(rename = "http")]
    Http,
    /// HTTP/1.0, without any header.
    #[serde(rename = "http/1.0")]
    Http10,
    /// HTTP/2 without TLS, of which the server knows before.
    #[serde(rename = "http2")]
    Http2,
    /// gRPC, without TLS.
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP/1.1 in TLS.
    #[serde(rename = "https")]
    Https,
    /// HTTP/2 in TLS.
    #[serde(rename = "https2")]
    Https2,
    /// Bytes that are not HTTP.
    #[serde(rename = "tcp")]
    Tcp,
    /// The same, after the server has spoken.
    #[serde(rename = "server-first")]
    ServerFirst,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where to connect.
    pub address: SocketAddr,
    /// What to speak.
    pub scheme: Scheme,
    /// Method, of HTTP.
    pub method: String,
    /// Host, with or without a port.
    pub host: String,
    /// Path with its query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Bytes that come before everything else.
    pub before: Vec<u8>,
    /// Longest wait for the whole.
    pub limit: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Status of HTTP; 0 of what is not HTTP.
    pub status: u16,
    /// Status of gRPC.
    pub grpc: Option<u32>,
    /// Headers, and what may follow the body.
    pub headers: HeaderMap,
    /// The first line as it came, of HTTP/1.0.
    pub line: String,
    /// What the server says that it saw; null when somebody else answered.
    pub server: Value,
}

impl Call {
    /// Calls from inside a namespace.
    ///
    /// # Errors
    /// When there is no answer in time, or none of that protocol.
    pub fn from(&self, namespace: &str) -> anyhow::Result<Reply> {
        within(namespace, || async {
            tokio::time::timeout(self.limit, self.send()).await.context("no answer in time")?
        })
    }

    async fn send(&self) -> anyhow::Result<Reply> {
        let mut stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.before).await?;
        match self.scheme {
            Scheme::Http => self.http1(stream).await,
            Scheme::Http10 => self.http10(stream).await,
            Scheme::Http2 | Scheme::Grpc => self.http2(stream).await,
            Scheme::Https => self.http1(self.tls(stream, b"http/1.1").await?).await,
            Scheme::Https2 => self.http2(self.tls(stream, b"h2").await?).await,
            Scheme::Tcp | Scheme::ServerFirst => self.bytes(stream).await,
        }
    }

    async fn tls(
        &self,
        stream: TcpStream,
        protocol: &[u8],
    ) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = unverified_client_config(Proof::Key, &[protocol])?;
        let name = self.host.split(':').next().unwrap_or_default().to_owned();
        TlsConnector::from(Arc::new(config)).connect(name.try_into()?, stream).await.context("TLS")
    }

    fn request(&self, uri: String) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut builder = Request::builder().method(self.method.as_str()).uri(uri);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let mut body = Bytes::new();
        if self.scheme == Scheme::Grpc {
            builder =
                builder.method("POST").header("content-type", "application/grpc").header("te", "trailers");
            // An empty message, not compressed.
            body = Bytes::from_static(&[0; 5]);
        }
        builder.body(Full::new(body)).context("request")
    }

    async fn http1(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> anyhow::Result<Reply> {
        let mut builder = hyper::client::conn::http1::Builder::new();
        // Other clients do so; who keeps the letters' case is seen by it.
        builder.title_case_headers(true);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        tokio::spawn(connection);
        let mut request = self.request(self.path.clone())?;
        request.headers_mut().insert(http::header::HOST, self.host.parse()?);
        reply(sender.send_request(request).await.context("request")?).await
    }

    async fn http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> anyhow::Result<Reply> {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        tokio::spawn(connection);
        let scheme = if self.scheme == Scheme::Https2 { "https" } else { "http" };
        let request = self.request(format!("{scheme}://{}{}", self.host, self.path))?;
        reply(sender.send_request(request).await.context("request")?).await
    }

    async fn http10(&self, mut stream: TcpStream) -> anyhow::Result<Reply> {
        stream.write_all(format!("{} {} HTTP/1.0\r\n\r\n", self.method, self.path).as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
        let line = head.lines().next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        let server = serde_json::from_str(body).unwrap_or_default();
        Ok(Reply { status, line: line.to_owned(), server, ..Reply::default() })
    }

    async fn bytes(&self, mut stream: TcpStream) -> anyhow::Result<Reply> {
        if self.scheme == Scheme::ServerFirst {
            let mut greeting = vec![0; crate::echo::GREETING.len()];
            stream.read_exact(&mut greeting).await.context("greeting")?;
            ensure!(greeting == crate::echo::GREETING.as_bytes(), "another greeting");
        }
        stream.write_all(b"hello\n").await?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await?;
            if count == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&line));
            }
            line.extend_from_slice(&bytes[..count]);
        }
        Ok(Reply { server: serde_json::from_slice(&line).context("answer")?, ..Reply::default() })
    }
}

async fn reply(response: Response<Incoming>) -> anyhow::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("body")?;
    let mut headers = head.headers;
    if let Some(trailers) = body.trailers() {
        headers.extend(trailers.clone());
    }
    let bytes = body.to_bytes();
    // Of gRPC there are five bytes before the message.
    let at = bytes.iter().position(|&byte| byte == b'{').unwrap_or_default();
    let server = serde_json::from_slice(&bytes[at..]).unwrap_or_default();
    let grpc = headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    Ok(Reply { status: head.status.as_u16(), grpc, headers, line: String::new(), server })
}
