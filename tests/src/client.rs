//! One HTTP request at a time, as a program in a pod would make it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::netns::within;

/// Longest wait for one answer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{}: {}", self.status, self.body))
    }
}

/// What to ask.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where to connect.
    pub address: SocketAddr,
    /// `Host`.
    pub host: String,
    /// Path with its query.
    pub path: String,
    /// Method.
    pub method: Method,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

impl Ask {
    /// A `GET` of that path.
    pub fn get(address: impl Into<SocketAddr>, host: &str, path: &str) -> Self {
        let (host, path) = (host.to_owned(), path.to_owned());
        Self { address: address.into(), host, path, method: Method::GET, headers: Vec::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The request.
    ///
    /// # Errors
    /// When a header or the path is none.
    pub fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut builder = Request::builder().method(self.method.clone()).uri(&self.path);
        builder = builder.header(http::header::HOST, &self.host);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::default()).context("request")
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connect = timeout(LIMIT, TcpStream::connect(self.address)).await;
        let stream = connect.context("connect: no answer")?.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Asks over a new connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self) -> anyhow::Result<Answer> {
        let mut sender = self.connect().await?;
        self.send_over(&mut sender).await
    }

    /// Asks over that connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_over(&self, sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<Answer> {
        let exchange = async {
            let response = sender.send_request(self.request()?).await.context("request")?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.context("body")?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match timeout(LIMIT, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {LIMIT:?}"),
        }
    }

    /// Asks from inside a namespace.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn from(&self, namespace: &str) -> anyhow::Result<Answer> {
        within(namespace, || self.send())
    }
}
