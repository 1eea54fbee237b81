//! The two methods of `AggregatedDiscoveryService` as an HTTP service.
//!
//! The generated server would encode each response into a buffer of its own,
//! as large as the largest response so far and kept for the life of the stream:
//! a copy of the configuration for each proxy.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::SERVICE_NAME;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use xds::{Variant, wire};

use super::Service;
use super::requests::Requests;
use crate::drain::Life;
use crate::push::connection::Incoming;

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The one encoding of messages that is read.
const IDENTITY: &str = "identity";

impl NamedService for Service {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}

impl Service {
    /// The stream of responses, or why there is none.
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let variant = variant(request.uri().path())
            .ok_or_else(|| Status::unimplemented("only the aggregated discovery methods are served"))?;
        check_encoding(request.headers())?;
        let (parts, body) = request.into_parts();
        let life = parts.extensions.get::<Life>().cloned();
        if let Some(why) = life.as_ref().and_then(Life::refusal) {
            return Err(Status::unavailable(why));
        }
        let caller = self.caller(&parts.headers, &parts.extensions).await?;
        let body = match variant {
            Variant::Sotw => {
                let requests = Requests::<DiscoveryRequest>::new(body);
                self.start(caller, life, variant, requests, |mut request| Incoming {
                    node: request.node.take(),
                    error_code: request.error_detail.as_ref().map_or(0, |status| status.code),
                    request: wire::from_sotw(request),
                })
            }
            Variant::Delta => {
                let requests = Requests::<DeltaDiscoveryRequest>::new(body);
                self.start(caller, life, variant, requests, |mut request| Incoming {
                    node: request.node.take(),
                    error_code: request.error_detail.as_ref().map_or(0, |status| status.code),
                    request: wire::from_delta(request),
                })
            }
        };
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }
}

/// The method of that path.
fn variant(path: &str) -> Option<Variant> {
    let method = path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)?;
    match method {
        "/StreamAggregatedResources" => Some(Variant::Sotw),
        "/DeltaAggregatedResources" => Some(Variant::Delta),
        _ => None,
    }
}

/// Requests must not be compressed: what they blow up to could not be bounded
/// by what was sent.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    let Some(encoding) = headers.get(ENCODING).filter(|encoding| *encoding != IDENTITY) else {
        return Ok(());
    };
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    let mut status = Status::unimplemented(format!(
        "requests are compressed with {encoding:?}, which istiod does not read; send them with {IDENTITY:?}"
    ));
    let accepted = HeaderValue::from_static(IDENTITY);
    let metadata = std::mem::take(status.metadata_mut());
    let mut headers = metadata.into_headers();
    headers.insert(ACCEPT_ENCODING, accepted);
    *status.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    Err(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_methods_are_served() {
        let path = |method: &str| format!("/{SERVICE_NAME}/{method}");
        assert_eq!(variant(&path("StreamAggregatedResources")), Some(Variant::Sotw));
        assert_eq!(variant(&path("DeltaAggregatedResources")), Some(Variant::Delta));
        assert_eq!(variant(&path("DeltaAggregatedResources/more")), None);
        assert_eq!(variant("/DeltaAggregatedResources"), None);
        assert_eq!(variant(""), None);
    }

    #[test]
    fn compressed_requests_are_refused_with_what_is_read() {
        let of = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(
                value.map(|value| (http::HeaderName::from_static(ENCODING), HeaderValue::from_static(value))),
            );
            check_encoding(&headers)
        };
        assert!(of(None).is_ok());
        assert!(of(Some("identity")).is_ok());
        let response: Response<()> = of(Some("gzip")).unwrap_err().into_http();
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()[ACCEPT_ENCODING], "identity");
        assert!(of(Some("")).is_err());
    }
}
