//! What Datadog's agent is to a tracer: it takes traces by HTTP, as MessagePack, and says how
//! much of each service is wanted. <https://docs.datadoghq.com/tracing/guide/send_traces_to_agent_by_api/>

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::tasks::Tasks;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::server;

/// Where it takes traces.
pub const PORT: u16 = 8126;
/// The path for traces, of the version that says dictionaries in full.
const TRACES: &str = "/v0.4/traces";

/// One span, as Datadog has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    /// Who reports it.
    pub service: String,
    /// The sort of operation.
    pub name: String,
    /// What was worked on.
    pub resource: String,
    /// The lower half of the trace's id.
    pub trace_id: u64,
    /// Its id.
    pub span_id: u64,
    /// Id of the span that it is part of; 0 for the first of a trace.
    pub parent_id: u64,
    /// 1 for one that failed.
    pub error: i32,
    /// Tags that are text.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Tags that are numbers.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

impl Span {
    /// What was decided of the whole trace: it is kept when this is over 0. Only the first
    /// span of each service has it.
    #[must_use]
    pub fn priority(&self) -> Option<f64> {
        self.metrics.get("_sampling_priority_v1").copied()
    }
}

/// What came.
#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    /// Requests for traces that were none, and why.
    faults: Vec<String>,
}

/// One that runs; it ends when dropped.
#[derive(Debug)]
pub struct Agent {
    kept: Arc<Mutex<Kept>>,
    _server: server::Server,
}

impl Agent {
    /// Starts one in a namespace; tracers call it by that name.
    #[must_use]
    pub fn start(namespace: &str, name: &'static str) -> Self {
        let kept = Arc::default();
        let taken = Arc::clone(&kept);
        let serve = move |listener| async move { serve(listener, name, &taken).await };
        Self { kept, _server: server::Server::start("Datadog's agent", namespace, PORT, serve) }
    }

    /// All spans that came.
    ///
    /// # Errors
    /// When something came that the agent would not take.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(kept.faults.is_empty(), "{:?}", kept.faults);
        Ok(kept.spans.clone())
    }

    /// Spans of one request, which is known by its path.
    ///
    /// # Errors
    /// When there are fewer, or something came that the agent would not take.
    pub fn trace(&self, path: &str, count: usize) -> anyhow::Result<Vec<Span>> {
        let is_of = |span: &Span| span.meta.get("http.url").is_some_and(|url| url.ends_with(path));
        let spans: Vec<Span> = self.spans()?.into_iter().filter(is_of).collect();
        ensure!(spans.len() >= count, "{} of {count} spans of {path}: {spans:?}", spans.len());
        Ok(spans)
    }
}

async fn serve(listener: TcpListener, name: &'static str, kept: &Arc<Mutex<Kept>>) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let kept = Arc::clone(kept);
        tasks.spawn("traces", async move {
            let service = service_fn(move |request| answer(request, name, Arc::clone(&kept)));
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok()
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    name: &'static str,
    kept: Arc<Mutex<Kept>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // What else a tracer tells (of itself) is not for this one.
    if request.uri().path() != TRACES {
        return Ok(respond(StatusCode::NOT_FOUND, ""));
    }
    let (head, body) = request.into_parts();
    let read = async {
        let body = body.collect().await?.to_bytes();
        read(&head.headers, name, &body)
    };
    let read = read.await;
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match read {
        Ok(spans) => {
            kept.spans.extend(spans);
            respond(StatusCode::OK, "{\"rate_by_service\":{\"service:,env:\":1.0}}")
        }
        Err(error) => {
            kept.faults.push(format!("{error:#}"));
            respond(StatusCode::BAD_REQUEST, "")
        }
    })
}

/// The spans of a request, if it is as it should be.
fn read(headers: &HeaderMap, name: &str, body: &[u8]) -> anyhow::Result<Vec<Span>> {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).with_context(|| name.to_owned());
    ensure!(header(CONTENT_TYPE.as_str())? == "application/msgpack", "{headers:?}");
    ensure!(header(HOST.as_str())? == name, "{headers:?}");
    let traces: Vec<Vec<Span>> = rmp_serde::from_slice(body)?;
    ensure!(header("x-datadog-trace-count")?.parse() == Ok(traces.len()), "{headers:?}");
    Ok(traces.into_iter().flatten().collect())
}

fn respond(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// One trace of one span, as a tracer writes it: a map in each list.
    fn body() -> Vec<u8> {
        let span = serde_json::json!([[{
            "service": "front.shop", "name": "envoy.proxy", "resource": "back:80/*",
            "trace_id": u64::MAX, "span_id": 2, "parent_id": 0, "start": 1, "duration": 3, "error": 0,
            "meta": {"http.url": "http://back/x"}, "metrics": {"_sampling_priority_v1": 1.0}, "type": ""
        }]]);
        rmp_serde::to_vec_named(&span).unwrap()
    }

    fn headers(count: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/msgpack")),
            (HOST, HeaderValue::from_static("agent")),
            ("x-datadog-trace-count".parse().unwrap(), HeaderValue::from_static(count)),
        ])
    }

    #[test]
    fn spans_are_read() {
        let spans = read(&headers("1"), "agent", &body()).unwrap();
        assert_eq!((spans[0].trace_id, spans[0].priority()), (u64::MAX, Some(1.0)));
        assert_eq!(spans[0].meta["http.url"], "http://back/x");
    }

    #[test]
    fn what_an_agent_refuses_is_refused() {
        read(&headers("2"), "agent", &body()).unwrap_err();
        read(&headers("1"), "other", &body()).unwrap_err();
        read(&headers("1"), "agent", &body()[1..]).unwrap_err();
        read(&HeaderMap::new(), "agent", &body()).unwrap_err();
    }
}
