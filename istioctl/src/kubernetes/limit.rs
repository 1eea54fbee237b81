//! A client of the API server that waits so long for an answer, and for each part of it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio::time::timeout;
use tower::layer::layer_fn;
use tower::util::BoxService;
use tower::{BoxError, ServiceExt as _};

/// The parts of an answer.
type Parts = StreamBody<BoxStream<'static, Result<Frame<Bytes>, BoxError>>>;

/// A client with the limit of `config.read_timeout`. Of the connection as a whole that
/// limit would end what is forwarded over it and is quiet, or slow with its first byte.
pub(super) fn client(mut config: Config) -> kube::Result<Client> {
    let limit = config.read_timeout.take().unwrap_or(Duration::MAX);
    let builder = ClientBuilder::try_from(config)?;
    let layer = layer_fn(move |service: BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>| {
        service.map_future(move |answer| limited(answer, limit))
    });
    Ok(builder.with_layer(&layer).build())
}

async fn limited(
    answer: impl Future<Output = Result<Response<Box<DynBody>>, BoxError>>,
    limit: Duration,
) -> Result<Response<Parts>, BoxError> {
    let response = timeout(limit, answer).await.map_err(|_| late(limit))??;
    Ok(response.map(|body| StreamBody::new(parts(body, limit))))
}

fn parts(body: Box<DynBody>, limit: Duration) -> BoxStream<'static, Result<Frame<Bytes>, BoxError>> {
    let next = move |body: Option<Box<DynBody>>| async move {
        let mut body = body?;
        match timeout(limit, body.frame()).await {
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(late(limit)), None)),
        }
    };
    unfold(Some(body), next).boxed()
}

fn late(limit: Duration) -> BoxError {
    format!("no answer in {limit:?}; --kubeclient-timeout waits longer").into()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What a client says of a server that answers so far and no further.
    async fn said(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        config.read_timeout = Some(Duration::from_millis(50));
        config.default_retry = false;
        let client = client(config).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The whole question: it is answered by nobody who still reads.
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let request = Request::get("/version").body(Vec::new()).unwrap();
        tokio::select! {
            text = client.request_text(request) => text.unwrap_or_else(|error| {
                format!("{:#}", anyhow::Error::new(error))
            }),
            () = server => unreachable!(),
        }
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_or_go_on_is_not_waited_for() {
        for cut in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"] {
            let why = said(cut).await;
            assert!(why.contains("--kubeclient-timeout"), "{why}");
        }
        assert_eq!(said("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab").await, "ab");
    }
}
