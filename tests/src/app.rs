//! The applications of bookinfo: small, plain HTTP, unaware of the mesh.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use runtime::http::{Body, json, text};
use runtime::tasks::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Port of all of them.
pub const PORT: u16 = 9080;
/// Port that returns every byte.
pub const ECHO_PORT: u16 = 9000;
/// Version of an application that answers every path as `/headers`.
pub const ECHO: &str = "echo";
/// Headers that an application hands on to those it calls.
const HANDED_ON: [&str; 2] = ["end-user", "x-request-id"];
/// Where Envoy tells who called (Envoy's `x-forwarded-client-cert`).
const CALLER: &str = "x-forwarded-client-cert";

/// One application.
#[derive(Clone)]
struct App {
    name: String,
    version: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Serves an application until the process ends.
///
/// # Errors
/// When it cannot listen.
pub async fn run(name: &str, version: &str) -> anyhow::Result<()> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let app = App { name: name.to_owned(), version: version.to_owned(), client };
    let tasks = Tasks::new();
    let echo = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT)).await.context("port 9000")?;
    tasks.spawn("echo", serve_echo(tasks.clone(), echo));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.context("port 9080")?;
    runtime::http::serve(&tasks, "app", listener, move |request, _| {
        let app = app.clone();
        async move { app.answer(&request).await }
    });
    std::future::pending().await
}

async fn serve_echo(tasks: Tasks, listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tasks.spawn("echo", async move {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.ok();
        });
    }
}

impl App {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if path == "/headers" || self.version == ECHO {
            return json(&self.headers(request.headers()));
        }
        if let Some(code) = path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            return text(code, "");
        }
        let page = match (self.name.as_str(), path) {
            ("productpage", "/productpage") => self.productpage(request.headers()).await,
            ("reviews", _) if path.starts_with("/reviews/") => self.reviews(request.headers()).await,
            ("details", _) if path.starts_with("/details/") => {
                Ok(json!({ "title": "The Comedy of Errors", "author": "William Shakespeare", "year": 1595 }))
            }
            ("ratings", _) if path.starts_with("/ratings/") => Ok(json!({ "stars": 5 })),
            _ => return text(StatusCode::NOT_FOUND, format!("{} has no {path}\n", self.name)),
        };
        match page {
            Ok(page) => json(&page),
            Err(error) => text(StatusCode::BAD_GATEWAY, format!("{}: {error:#}\n", self.name)),
        }
    }

    async fn productpage(&self, headers: &HeaderMap) -> anyhow::Result<Value> {
        let details = self.call("http://details:9080/details/0", headers).await?;
        let reviews = self.call("http://reviews:9080/reviews/0", headers).await?;
        Ok(json!({ "details": details, "reviews": reviews }))
    }

    async fn reviews(&self, headers: &HeaderMap) -> anyhow::Result<Value> {
        let mut page = json!({ "version": self.version, "caller": caller(headers) });
        if self.version != "v1" {
            page["ratings"] = self.call("http://ratings:9080/ratings/0", headers).await?;
            page["color"] = if self.version == "v2" { "black" } else { "red" }.into();
        }
        Ok(page)
    }

    async fn call(&self, url: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
        let mut request = Request::get(url);
        for name in HANDED_ON {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        let response =
            self.client.request(request.body(Full::default())?).await.with_context(|| url.to_owned())?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(|| url.to_owned())?.to_bytes();
        anyhow::ensure!(
            status == StatusCode::OK,
            "{url}: {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
        serde_json::from_slice(&body).with_context(|| url.to_owned())
    }

    /// The request's headers as they came.
    fn headers(&self, headers: &HeaderMap) -> Value {
        let pairs = headers.iter().map(|(name, value)| {
            (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned()))
        });
        json!({ "name": self.name, "version": self.version, "headers": Value::Object(pairs.collect()) })
    }
}

/// Who called, and the fingerprint of the certificate that says so: the last
/// element, which the own sidecar wrote.
fn caller(headers: &HeaderMap) -> Value {
    let value = headers.get(CALLER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let last = value.rsplit(',').next().unwrap_or_default();
    let field = |name: &str| {
        let value = last.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| Value::from(value.trim_matches('"')))
    };
    json!({ "identity": field("URI"), "certificate": field("Hash") })
}
