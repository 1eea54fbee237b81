//! The body of a discovery stream: responses, written as the proxy takes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use xds::Variant;
use xds::wire::Pieces;

use crate::push::connection::Outgoing;

/// Pieces of a response that are with the transport. What waits there is memory
/// of this connection alone; two keep the socket busy.
const IN_FLIGHT: usize = 2;

/// Writes what comes out of a channel; a status ends the stream.
#[derive(Debug)]
pub(super) struct Responses {
    variant: Variant,
    answers: mpsc::Receiver<Result<Outgoing, Status>>,
    /// The response that is being written.
    current: Option<Pieces>,
    flight: Arc<Flight>,
    is_ended: bool,
}

/// The pieces that are with the transport.
#[derive(Debug, Default)]
struct Flight {
    count: AtomicUsize,
    landed: AtomicWaker,
}

/// A piece that tells when the transport is done with it.
struct Tracked {
    bytes: Bytes,
    flight: Arc<Flight>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.flight.count.fetch_sub(1, Ordering::AcqRel);
        self.flight.landed.wake();
    }
}

impl Flight {
    /// The piece, counted until it is dropped.
    fn track(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.count.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Tracked { bytes, flight: self.clone() })
    }

    /// Waits for room for one more.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let has_room = || self.count.load(Ordering::Acquire) < IN_FLIGHT;
        if has_room() {
            return Poll::Ready(());
        }
        self.landed.register(cx.waker());
        // One may have landed before it could tell.
        if has_room() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Responses {
    /// The body with the answers of that channel.
    #[must_use]
    pub(super) fn new(variant: Variant, answers: mpsc::Receiver<Result<Outgoing, Status>>) -> Self {
        Self { variant, answers, current: None, flight: Arc::default(), is_ended: false }
    }
}

impl http_body::Body for Responses {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.is_ended {
            return Poll::Ready(None);
        }
        ready!(this.flight.poll_room(cx));
        loop {
            if let Some(piece) = this.current.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(Frame::data(this.flight.track(piece)))));
            }
            this.current = None;
            let status = match ready!(this.answers.poll_recv(cx)) {
                Some(Ok(Outgoing::Answer(answer))) => {
                    this.current = Some(Pieces::new(this.variant, answer));
                    continue;
                }
                Some(Ok(Outgoing::Message(message))) => {
                    return Poll::Ready(Some(Ok(Frame::data(this.flight.track(message)))));
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            this.is_ended = true;
            this.answers.close();
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Only its details could not be written; of ours none has such.
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Internal as i32));
    }
    headers
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use names::TypeUrl;
    use prost::Message as _;
    use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
    use runtime::tasks::Tasks;
    use xds::frame::PREFIX;
    use xds::{Answer, Resource};

    use super::*;

    fn answer(nonce: &str, bytes: usize) -> Outgoing {
        Outgoing::Answer(Answer {
            type_url: TypeUrl::Cluster,
            nonce: nonce.into(),
            version: "v".into(),
            resources: vec![Resource::from_bytes("a", vec![1; bytes].into())],
            removed: Vec::new(),
        })
    }

    fn body() -> (mpsc::Sender<Result<Outgoing, Status>>, Responses) {
        let (tx, rx) = mpsc::channel(8);
        (tx, Responses::new(Variant::Delta, rx))
    }

    async fn data(body: &mut Responses) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn responses_are_followed_by_the_last_word() {
        let (tx, mut body) = body();
        tx.send(Ok(answer("1", 10))).await.unwrap();
        tx.send(Err(Status::unavailable("gone, 100 %"))).await.unwrap();
        let message = data(&mut body).await;
        let message = DeltaDiscoveryResponse::decode(&message[PREFIX..]).unwrap();
        assert_eq!((message.nonce.as_str(), message.resources.len()), ("1", 1));
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(Status::from_header_map(&trailers).unwrap().message(), "gone, 100 %");
        assert!(body.frame().await.is_none());
        assert!(tx.is_closed(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_stream_that_just_ends_is_fine() {
        let (tx, mut body) = body();
        drop(tx);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers.get("grpc-message"), None);
    }

    #[tokio::test]
    async fn no_more_is_written_than_the_transport_takes() {
        let (tx, mut body) = body();
        for nonce in ["1", "2", "3"] {
            tx.send(Ok(answer(nonce, 10))).await.unwrap();
        }
        let mut taken = Vec::new();
        for _ in 0..IN_FLIGHT {
            taken.push(data(&mut body).await);
        }
        assert!(body.frame().now_or_never().is_none());
        let waiting = Tasks::new().spawn("waiting", async move { data(&mut body).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        taken.pop();
        let third = waiting.await.unwrap().unwrap();
        assert_eq!(DeltaDiscoveryResponse::decode(&third[PREFIX..]).unwrap().nonce, "3");
    }
}
