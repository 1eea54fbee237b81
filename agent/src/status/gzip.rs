//! Answers made smaller for those who take it, piece by piece as they come.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use runtime::http::Body;

/// Shorter answers are not worth it.
const MIN_SIZE: u64 = 1024;

/// Whether the client takes gzip.
#[must_use]
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut parts = values.flat_map(|value| value.split(','));
    parts.any(|part| {
        let (name, quality) = part.split_once(';').unwrap_or((part, ""));
        let quality = quality.trim().strip_prefix("q=").unwrap_or("1").parse::<f32>().unwrap_or(1.0);
        matches!(name.trim(), "gzip" | "*") && quality > 0.0
    })
}

/// The same answer, compressed if it is worth it.
#[must_use]
pub fn compress(response: Response<Body>) -> Response<Body> {
    let size = response.body().size_hint();
    if size.exact().is_some_and(|size| size < MIN_SIZE) || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    head.headers.remove(CONTENT_LENGTH);
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    Response::from_parts(head, Compressed { body, encoder: Some(encoder) }.boxed())
}

struct Compressed {
    body: Body,
    /// `None` when everything is out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => Some(frame),
                None => None,
            };
            let Some(frame) = frame else {
                let last = this.encoder.take().map(GzEncoder::finish);
                return Poll::Ready(last.map(|last| last.map(|bytes| Frame::data(bytes.into()))));
            };
            if let Ok(data) = frame.into_data() {
                encoder.write_all(&data)?;
                let out = std::mem::take(encoder.get_mut());
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http::StatusCode;
    use runtime::http::text;

    use super::*;

    fn accepts(value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        is_accepted(&headers)
    }

    #[test]
    fn only_who_takes_it_gets_it() {
        assert!(accepts("gzip") && accepts("br, gzip;q=0.5") && accepts("*"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("") && !is_accepted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn long_answers_become_shorter_and_stay_the_same() {
        let long = "istio_requests_total 1\n".repeat(100_000);
        let response = compress(text(StatusCode::OK, long.clone()));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < long.len() / 20, "{}", bytes.len());
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut plain).unwrap();
        assert!(plain == long);
    }

    #[tokio::test]
    async fn short_answers_are_left_alone() {
        let response = compress(text(StatusCode::OK, "OK"));
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "OK");
    }
}
