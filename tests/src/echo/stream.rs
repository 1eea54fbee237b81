//! A method of gRPC that streams both ways: every message comes back as it is.

use std::io;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use runtime::http::Body;
use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Path of the method.
pub const PATH: &str = "/istio.test.Echo/Stream";
/// Header with the status that the call is to have in the end.
pub const STATUS: &str = "x-status";
/// Blocks of bytes that may wait for the client.
const QUEUE: usize = 4;

/// Answers while the request goes on.
pub(super) fn answer(request: Request<Incoming>, tasks: &Tasks) -> Response<Body> {
    let status = request.headers().get(STATUS).cloned().unwrap_or(HeaderValue::from_static("0"));
    let mut body = request.into_body();
    let (sender, receiver) = mpsc::channel::<io::Result<_>>(QUEUE);
    tasks.spawn("messages", async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                sender.send(Ok(Frame::data(data))).await.ok()?;
            }
        }
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        sender.send(Ok(Frame::trailers(trailers))).await.ok()
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
