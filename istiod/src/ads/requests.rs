//! The requests of a discovery stream, read without keeping a buffer.
//!
//! tonic's reader keeps room for the largest message so far as long as the
//! stream lives; proxies send one large request and then small ones for days.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use futures_util::Stream;
use http_body::Body as _;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use xds::frame::PREFIX;

use super::MAX_REQUEST;

/// Reads messages from the body of a request.
#[derive(Debug)]
pub(super) struct Requests<T> {
    body: Body,
    /// What came of the next message.
    read: BytesMut,
    is_ended: bool,
    message: PhantomData<fn() -> T>,
}

impl<T> Requests<T> {
    /// The messages of that body.
    pub(super) fn new(body: Body) -> Self {
        Self { body, read: BytesMut::new(), is_ended: false, message: PhantomData }
    }
}

impl<T: Message + Default> Requests<T> {
    /// The next message, if all of it came.
    fn take(&mut self) -> Result<Option<T>, Status> {
        let Some(&[flag, a, b, c, d]) = self.read.first_chunk::<PREFIX>() else { return Ok(None) };
        match flag {
            0 => {}
            1 => return Err(Status::internal("a compressed message on a stream that names no compression")),
            _ => return Err(Status::internal(format!("a gRPC message begins with {flag}, not 0 or 1"))),
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_REQUEST {
            return Err(too_large(length));
        }
        if self.read.len() < PREFIX + length {
            return Ok(None);
        }
        let mut message = self.read.split_to(PREFIX + length);
        if self.read.is_empty() {
            // The room goes with the message.
            self.read = BytesMut::new();
        }
        message.advance(PREFIX);
        let message = T::decode(message).map_err(|error| Status::internal(format!("a request: {error}")))?;
        Ok(Some(message))
    }
}

impl<T: Message + Default> Stream for Requests<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.is_ended {
                return Poll::Ready(None);
            }
            match this.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        this.read.extend_from_slice(data);
                    }
                }
                Some(Err(status)) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    this.is_ended = true;
                    if !this.read.is_empty() {
                        let status = Status::internal("the stream ends within a message");
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
        }
    }
}

/// More than [`MAX_REQUEST`], with a way out.
fn too_large(length: usize) -> Status {
    Status::resource_exhausted(format!(
        "a discovery request is larger than {MAX_REQUEST} bytes ({length}): subscribe to fewer names at once, \
         or let a Sidecar object limit what the proxy sees"
    ))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use proto::envoy::service::discovery::v3::DiscoveryRequest;
    use tonic::Code;
    use xds::frame::framed;

    use super::*;

    fn request(name: &str) -> DiscoveryRequest {
        DiscoveryRequest { resource_names: vec![name.to_owned()], ..DiscoveryRequest::default() }
    }

    fn body(pieces: Vec<Bytes>) -> Requests<DiscoveryRequest> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        Requests::new(Body::new(StreamBody::new(stream::iter(frames))))
    }

    async fn all(mut requests: Requests<DiscoveryRequest>) -> (Vec<DiscoveryRequest>, Option<Code>) {
        let mut read = Vec::new();
        while let Some(next) = requests.next().await {
            match next {
                Ok(request) => read.push(request),
                Err(status) => {
                    assert!(requests.next().await.is_none(), "an error is the last");
                    return (read, Some(status.code()));
                }
            }
        }
        (read, None)
    }

    proptest! {
        #[test]
        fn messages_are_read_however_they_are_cut(
            names in prop::collection::vec("[a-z]{0,30}", 0..8),
            sizes in prop::collection::vec(1..40_usize, 1..8),
        ) {
            let requests: Vec<DiscoveryRequest> = names.iter().map(|name| request(name)).collect();
            let mut bytes: Bytes = requests.iter().flat_map(framed).collect::<Vec<u8>>().into();
            let mut pieces = Vec::new();
            for size in sizes.into_iter().cycle() {
                if bytes.is_empty() {
                    break;
                }
                pieces.push(bytes.split_to(size.min(bytes.len())));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(all(body(pieces))), (requests, None));
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_between_messages() {
        let mut requests = body(vec![framed(&request(&"a".repeat(100_000)))]);
        assert!(requests.next().await.unwrap().is_ok());
        assert_eq!(requests.read.capacity(), 0);
    }

    #[tokio::test]
    async fn broken_streams_end_with_a_reason() {
        let good = framed(&request("a"));
        let cases: [(&[u8], Code); 5] = [
            (&[1, 0, 0, 0, 0], Code::Internal),
            (&[2, 0, 0, 0, 0], Code::Internal),
            (&[0, 0, 0, 0, 1, 0xff], Code::Internal),
            (&[0, 0, 0, 0, 9, 0x0a], Code::Internal),
            (&[0, 0, 0x40, 0, 1], Code::ResourceExhausted),
        ];
        for (bytes, code) in cases {
            let pieces = vec![good.clone(), Bytes::copy_from_slice(bytes)];
            assert_eq!(all(body(pieces)).await, (vec![request("a")], Some(code)), "{bytes:?}");
        }
    }
}
