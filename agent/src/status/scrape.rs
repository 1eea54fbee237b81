//! Metrics of agent and Envoy in one answer. Envoy's are passed on as they
//! come, however long they are.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use runtime::http::Body;
use tracing::warn;

use crate::envoy::admin::Local;
use crate::metrics::Metrics;

/// Longest wait for Envoy to begin its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a scraper says of itself, of which Envoy should know.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Joins `own` metrics with Envoy's. A source that fails is counted and left
/// out: the rest is still worth having.
pub async fn merged(
    own: String,
    admin: &Local,
    query: Option<&str>,
    headers: &HeaderMap,
    metrics: &Metrics,
) -> Response<Body> {
    let envoy = match envoy(admin, query, headers).await {
        Ok(body) => Some(body),
        Err(reason) => {
            metrics.scrape_failed();
            warn!(reason, "Envoy's metrics are left out");
            None
        }
    };
    let body = Joined { own: Some(own.into()), envoy };
    let mut response = Response::new(body.map_err(io_never).boxed());
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

async fn envoy(admin: &Local, query: Option<&str>, headers: &HeaderMap) -> Result<Incoming, String> {
    let path =
        query.map_or_else(|| "/stats/prometheus".to_owned(), |query| format!("/stats/prometheus?{query}"));
    let mut passed = HeaderMap::new();
    if let Some(value) = headers.get(USER_AGENT) {
        passed.insert(USER_AGENT, value.clone());
    }
    if let Some(value) = headers.get(SCRAPE_TIMEOUT) {
        passed.insert(SCRAPE_TIMEOUT, value.clone());
    }
    let limit = headers
        .get(SCRAPE_TIMEOUT)
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(TIMEOUT);
    let answer = tokio::time::timeout(limit, admin.send(Method::GET, &path, passed, Bytes::new())).await;
    let answer =
        answer.map_err(|_| format!("no answer within {limit:?}"))?.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(answer.into_body()) } else { Err(answer.status().to_string()) }
}

/// Our text, then Envoy's. A break in Envoy's ends the answer where it is.
struct Joined {
    own: Option<Bytes>,
    envoy: Option<Incoming>,
}

impl HttpBody for Joined {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(own) = self.own.take() {
            return Poll::Ready(Some(Ok(Frame::data(own))));
        }
        let Some(envoy) = &mut self.envoy else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(envoy).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                warn!(%error, "Envoy's metrics break off");
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }
}

fn io_never(never: Infallible) -> io::Error {
    match never {}
}
