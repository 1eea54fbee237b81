//! Adds what was counted to Envoy's own answer at `/stats/prometheus`.
//!
//! The filter stands in the listener that leads to Envoy's statistics, last before the
//! router.

use std::time::Instant;

use crate::attributes::{Attribute, Headers, Stream};
use crate::registry;

/// One scrape.
#[derive(Debug, Default)]
pub struct Filter {
    is_scrape: bool,
    is_added: bool,
}

impl Filter {
    /// Before the request's headers go on.
    pub fn request_headers(&mut self, stream: &mut impl Stream) {
        let path = stream.text(Attribute::RequestUrlPath).unwrap_or_default();
        self.is_scrape = path == "/stats/prometheus";
        if self.is_scrape {
            // Envoy could answer in protobuf, to which no text can be added.
            stream.remove_header(Headers::Request, "accept");
        }
    }

    /// Before the response's headers go on.
    pub fn response_headers(&mut self, stream: &mut impl Stream) {
        self.is_scrape &= stream.header(Headers::Response, ":status") == Some(b"200");
        if self.is_scrape {
            stream.remove_header(Headers::Response, "content-length");
        }
    }

    /// Before a piece of the response's body goes on; `is_last`: the last one.
    pub fn response_body(&mut self, stream: &mut impl Stream, is_last: bool) {
        if self.is_scrape && is_last && !self.is_added {
            let registry = registry::global();
            registry.expire(registry::seconds(Instant::now()));
            self.is_added = true;
            registry.render(&mut |piece| {
                stream.append_response(piece.as_bytes());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use crate::attributes::Attribute;
    use crate::attributes::fake::Fake;

    fn scrape(path: &str, status: &str) -> Fake {
        let mut stream = Fake::default()
            .text(Attribute::RequestUrlPath, path)
            .request("accept", "application/vnd.google.protobuf")
            .response(":status", status)
            .response("content-length", "5");
        let mut filter = Filter::default();
        filter.request_headers(&mut stream);
        filter.response_headers(&mut stream);
        filter.response_body(&mut stream, false);
        assert!(stream.appended.is_empty(), "only at the end");
        filter.response_body(&mut stream, true);
        filter.response_body(&mut stream, true);
        stream
    }

    #[test]
    fn what_was_counted_is_added_once() {
        let stream = scrape("/stats/prometheus", "200");
        let text = String::from_utf8(stream.appended).unwrap();
        assert_eq!(text.matches("istio_telemetry_faults_total{}").count(), 1, "{text}");
        assert!(stream.request.is_empty() && !stream.response.contains_key("content-length"));
    }

    #[test]
    fn other_answers_stay_as_they_are() {
        for (path, status) in [("/stats", "200"), ("/stats/prometheus", "503")] {
            let stream = scrape(path, status);
            assert!(stream.appended.is_empty() && stream.response.contains_key("content-length"));
        }
    }
}
