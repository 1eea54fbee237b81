//! One question to the health service of gRPC, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use runtime::tasks::Tasks;
use tokio::net::TcpStream;
use xds::frame::framed;

use crate::unix::Spawner;

/// The question's path.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Largest answer.
const MAX_ANSWER: usize = 64 << 10;
/// `SERVING` of the answer's status.
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Why the service does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke.
    #[error("gRPC health check: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is none of gRPC.
    #[error("gRPC health check: {0}")]
    Answer(String),
    /// It says no.
    #[error("gRPC health check: {}", describe(*.code, .message))]
    Status {
        /// Code of gRPC.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// It is not serving.
    #[error("gRPC health check: the service is {}", name(*.0))]
    NotServing(i32),
}

fn describe(code: u32, message: &str) -> String {
    if code == 12 {
        format!("the server does not implement grpc.health.v1.Health: {message}")
    } else {
        format!("status {code}: {message}")
    }
}

fn name(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "in an unknown state",
    }
}

/// Asks whether the service serves.
///
/// # Errors
/// When it does not, or does not say.
pub async fn check(
    stream: TcpStream,
    service: &str,
    agent: &HeaderValue,
    limit: Duration,
    tasks: &Tasks,
) -> Result<(), Error> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(Spawner(tasks.clone()), TokioIo::new(stream)).await?;
    drop(tasks.spawn("probe", connection));
    let request = request(service, agent, limit).map_err(|error| Error::Answer(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(Error::Answer(format!("HTTP status {}", head.status)));
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Error::Answer(error.to_string()))?;
    // Without a message the trailers come as headers.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    judge(&trailers, &body.to_bytes())
}

fn request(service: &str, agent: &HeaderValue, limit: Duration) -> http::Result<Request<Full<Bytes>>> {
    let question = Question { service: service.to_owned() };
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{CHECK}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, agent)
        .header("grpc-timeout", format!("{}m", limit.as_millis().min(99_999_999)))
        .body(Full::new(framed(&question)))
}

fn judge(trailers: &HeaderMap, body: &[u8]) -> Result<(), Error> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let code = text("grpc-status").parse();
    let code = code.map_err(|_| Error::Answer("no status: not a gRPC server".into()))?;
    if code != 0 {
        return Err(Error::Status { code, message: text("grpc-message").to_owned() });
    }
    let [0, _, _, _, _, message @ ..] = body else {
        return Err(Error::Answer("no message, or a compressed one".into()));
    };
    let answer = Answer::decode(message).map_err(|error| Error::Answer(error.to_string()))?;
    if answer.status == SERVING { Ok(()) } else { Err(Error::NotServing(answer.status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: &str, body: &[u8]) -> Result<(), String> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        trailers.insert("grpc-message", HeaderValue::from_static("why"));
        judge(&trailers, body).map_err(|error| error.to_string())
    }

    #[test]
    fn only_serving_is_healthy() {
        assert_eq!(verdict("0", &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for (status, body, reason) in [
            ("0", &[0, 0, 0, 0, 2, 8, 2][..], "the service is NOT_SERVING"),
            ("0", &[0, 0, 0, 0, 0], "the service is UNKNOWN"),
            ("0", &[1, 0, 0, 0, 2, 8, 1], "no message, or a compressed one"),
            ("0", &[], "no message, or a compressed one"),
            ("5", &[], "status 5: why"),
            ("12", &[], "the server does not implement grpc.health.v1.Health: why"),
            ("x", &[], "no status: not a gRPC server"),
        ] {
            assert_eq!(verdict(status, body), Err(format!("gRPC health check: {reason}")));
        }
    }

    /// A server that serves `good`, and nothing else.
    async fn server(tasks: &Tasks) -> u16 {
        use hyper_util::rt::TokioExecutor;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
            assert_eq!(request.uri().path(), CHECK);
            let asked = request.into_body().collect().await?.to_bytes();
            let question = Question::decode(&asked[xds::frame::PREFIX..]).unwrap();
            let is_good = question.service == "good";
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(if is_good { "0" } else { "5" }));
            let answer = if is_good { &[0, 0, 0, 0, 2, 8, 1][..] } else { &[] };
            let body = Full::new(Bytes::from(answer)).with_trailers(async move { Some(Ok(trailers)) });
            Ok::<_, hyper::Error>(http::Response::new(body))
        });
        tasks.spawn("server", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), service).await.ok();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_server_is_asked_over_http2() {
        let tasks = Tasks::new();
        let port = server(&tasks).await;
        for (name, expected) in [("good", None), ("other", Some("gRPC health check: status 5: "))] {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let agent = HeaderValue::from_static("kube-probe/1.33");
            let result = check(stream, name, &agent, Duration::from_secs(60), &tasks).await;
            assert_eq!(result.map_err(|error| error.to_string()).err().as_deref(), expected);
        }
    }

    #[test]
    fn the_question_names_the_service() {
        let request = request("a", &HeaderValue::from_static("kube-probe/1.33"), Duration::from_secs(2));
        let request = request.unwrap();
        assert_eq!(request.uri().path(), CHECK);
        assert_eq!(request.headers()["grpc-timeout"], "2000m");
        let mut body = Vec::new();
        body.extend([0, 0, 0, 0, 3]);
        body.extend(Question { service: "a".into() }.encode_to_vec());
        let sent = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sent = sent.block_on(request.into_body().collect()).unwrap().to_bytes();
        assert_eq!(sent, body);
    }
}
