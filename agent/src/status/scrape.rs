//! Metrics of agent, Envoy and application in one answer. They are passed on as
//! they come, however long they are: nothing is kept but a line of each.

mod accept;
mod join;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use runtime::http::Body;
use runtime::tasks::Tasks;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::url::Url;
use crate::config::status::{Merge, Target};
use crate::envoy::admin::Local;
use crate::metrics::{Metrics, Scraped};
use accept::Format;
use join::{Joined, Source};

/// Longest wait for a source when the scraper does not say how long it waits.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same whatever it says.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the scraper waits, in seconds.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Part of that time after which slow sources are left out: a scraper that
/// gives up has nothing at all.
const USED: f64 = 0.9;
/// Redirections of an application that are followed.
const MAX_REDIRECTS: usize = 10;

/// What a source answered.
type Fetched = Result<Response<Incoming>, String>;

/// Joins `own` metrics, which `port` has, with Envoy's and the application's. A
/// source that fails is counted and left out: the rest is still worth having.
pub async fn merged(
    (own, port): (String, u16),
    merge: &Merge,
    admin: &Local,
    query: Option<&str>,
    headers: &HeaderMap,
    metrics: &Arc<Metrics>,
) -> Response<Body> {
    let deadline = Instant::now() + limit(headers);
    let tasks = &admin.tasks;
    let envoy = async { if merge.envoy { Some(envoy(admin, query, headers, deadline).await) } else { None } };
    let targets = merge.targets.iter().map(|target| application(target, port, headers, tasks, deadline));
    let (envoy, targets) = tokio::join!(envoy, join_all(targets));

    let mut sources = Vec::with_capacity(1 + targets.len());
    if let Some(fetched) = envoy {
        sources.extend(source(fetched, Scraped::Envoy, "Envoy".into(), metrics));
    }
    let mut format = None;
    for (target, fetched) in merge.targets.iter().zip(targets) {
        if let Ok(response) = &fetched {
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let found = Format::of(content_type.unwrap_or_default());
            // Formats that differ have only the lines of samples in common.
            format = Some(format.filter(|known| *known != found).map_or(found, |_| Format::Text));
        }
        let name = format!("port {} path {:?}", target.port, target.path);
        sources.extend(source(fetched, Scraped::Application, name, metrics));
    }
    let format = format.unwrap_or(Format::Text);
    let body = Joined::new(own.into(), sources, format.has_end(), deadline);
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

/// How long sources may take.
fn limit(headers: &HeaderMap) -> Duration {
    let asked = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let limit = asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.map_or(TIMEOUT, |limit| limit.mul_f64(USED).min(MAX_TIMEOUT))
}

fn source(fetched: Fetched, kind: Scraped, name: String, metrics: &Arc<Metrics>) -> Option<Source<Incoming>> {
    let metrics = metrics.clone();
    let on_failure = move |reason: &str| {
        metrics.scrape_failed(kind);
        error!(source = name, reason, "failed scraping {} metrics", kind.name());
    };
    match fetched {
        Ok(response) => Some(Source { body: response.into_body(), on_failure: Box::new(on_failure) }),
        Err(reason) => {
            on_failure(&reason);
            None
        }
    }
}

async fn envoy(admin: &Local, query: Option<&str>, headers: &HeaderMap, deadline: Instant) -> Fetched {
    let path =
        query.map_or_else(|| "/stats/prometheus".to_owned(), |query| format!("/stats/prometheus?{query}"));
    fetch(admin, &path, &passed(headers, accept::ENVOY), deadline).await
}

async fn application(
    target: &Target,
    own_port: u16,
    headers: &HeaderMap,
    tasks: &Tasks,
    deadline: Instant,
) -> Fetched {
    let headers = passed(headers, accept::APPLICATION);
    let mut url =
        Url { is_tls: false, host: "localhost".into(), port: target.port, path: target.path.clone() };
    for _ in 0..=MAX_REDIRECTS {
        let server = Local { port: url.port, tasks: tasks.clone() };
        let response = fetch(&server, &url.path, &headers, deadline).await;
        let location = match &response {
            Ok(response) if response.status().is_redirection() => response.headers().get(LOCATION).cloned(),
            _ => None,
        };
        let Some(location) = location else { return ok(response) };
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        match url.follow(&location) {
            // At the own port it would all begin again, without end.
            Some(next) if next.port == own_port => {
                return Err(format!("redirected to {location:?}, which is merged already"));
            }
            Some(next) if !next.is_tls && next.host == url.host => url = next,
            _ => return Err(format!("redirected to {location:?}, which is not of this pod")),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// What a source may know of the scraper.
fn passed(headers: &HeaderMap, allowed: &[&str]) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in [USER_AGENT, SCRAPE_TIMEOUT] {
        if let Some(value) = headers.get(&name) {
            passed.insert(name, value.clone());
        }
    }
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(accept::filter(accept, allowed)) {
        passed.insert(ACCEPT, value);
    }
    passed
}

async fn fetch(server: &Local, path: &str, headers: &HeaderMap, deadline: Instant) -> Fetched {
    let answer = server.send(Method::GET, path, headers.clone(), Bytes::new());
    match timeout_at(deadline, answer).await {
        Ok(Ok(response)) if response.status().is_redirection() => Ok(response),
        Ok(answer) => ok(answer.map_err(|error| error.to_string())),
        Err(_) => Err("no answer in time".into()),
    }
}

fn ok(fetched: Fetched) -> Fetched {
    match fetched {
        Ok(response) if response.status() != StatusCode::OK => Err(format!("status {}", response.status())),
        other => other,
    }
}

#[cfg(test)]
mod tests;
