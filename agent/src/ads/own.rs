//! Messages that the agent itself sends and reads, in both variants of the
//! protocol.

use bytes::Bytes;
use prost::Message as _;
use proto::Any;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::google::rpc::Status;
use xds::frame::{Fields, framed};

use super::health::Health;

/// gRPC status `INTERNAL`, which refusals carry.
const INTERNAL: i32 = 13;

/// Variant of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// What a request of the agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// Type of the resources.
    pub type_url: &'a str,
    /// Version in force; the state of the world only.
    pub version: &'a str,
    /// Nonce of the response that is answered; empty in a subscription.
    pub nonce: &'a str,
    /// Why the response is refused.
    pub error: Option<&'a str>,
}

/// A response that is meant for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its version.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// Its first resource; these types have one at most.
    pub resource: Option<Any>,
}

impl Variant {
    /// Where requests have what.
    #[must_use]
    pub fn requests(self) -> Fields {
        match self {
            Self::Sotw => Fields::SOTW_REQUEST,
            Self::Delta => Fields::DELTA_REQUEST,
        }
    }

    /// Where responses have what.
    #[must_use]
    pub fn responses(self) -> Fields {
        match self {
            Self::Sotw => Fields::SOTW_RESPONSE,
            Self::Delta => Fields::DELTA_RESPONSE,
        }
    }

    /// A request with the bytes before it. It has no node: only the first
    /// message of a stream has one, and that is Envoy's.
    #[must_use]
    pub fn request(self, request: &Request<'_>) -> Bytes {
        let type_url = request.type_url.to_owned();
        let error_detail = request.error.map(|reason| Status {
            code: INTERNAL,
            message: reason.to_owned(),
            ..Status::default()
        });
        match self {
            Self::Sotw => framed(&DiscoveryRequest {
                version_info: request.version.to_owned(),
                type_url,
                response_nonce: request.nonce.to_owned(),
                error_detail,
                ..DiscoveryRequest::default()
            }),
            Self::Delta => framed(&DeltaDiscoveryRequest {
                type_url,
                response_nonce: request.nonce.to_owned(),
                error_detail,
                ..DeltaDiscoveryRequest::default()
            }),
        }
    }

    /// The request that tells istiod how the workload is.
    #[must_use]
    pub fn health(self, health: &Health) -> Bytes {
        let error = match health {
            Health::Healthy => None,
            Health::Unhealthy(reason) => Some(reason.as_str()),
        };
        let type_url = names::TypeUrl::Health;
        self.request(&Request { type_url: type_url.as_str(), error, ..Request::default() })
    }

    /// Reads a response.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn response(self, message: Bytes) -> Result<Response, prost::DecodeError> {
        Ok(match self {
            Self::Sotw => {
                let message = DiscoveryResponse::decode(message)?;
                Response {
                    version: message.version_info,
                    nonce: message.nonce,
                    resource: message.resources.into_iter().next(),
                }
            }
            Self::Delta => {
                let message = DeltaDiscoveryResponse::decode(message)?;
                Response {
                    version: message.system_version_info,
                    nonce: message.nonce,
                    resource: message.resources.into_iter().find_map(|resource| resource.resource),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::envoy::service::discovery::v3::Resource;
    use xds::frame::PREFIX;

    use super::*;

    #[test]
    fn both_variants_say_the_same() {
        let request = Request { type_url: "t", version: "v", nonce: "n", error: Some("bad") };
        let sotw = DiscoveryRequest::decode(Variant::Sotw.request(&request).slice(PREFIX..)).unwrap();
        let delta = DeltaDiscoveryRequest::decode(Variant::Delta.request(&request).slice(PREFIX..)).unwrap();
        assert_eq!((sotw.version_info.as_str(), sotw.node), ("v", None));
        assert_eq!((&sotw.type_url, &sotw.response_nonce), (&delta.type_url, &delta.response_nonce));
        assert_eq!(sotw.error_detail, delta.error_detail);
        assert_eq!(delta.error_detail.unwrap().code, 13);
    }

    #[test]
    fn health_is_an_error_or_nothing() {
        let read =
            |health| DeltaDiscoveryRequest::decode(Variant::Delta.health(&health).slice(PREFIX..)).unwrap();
        let healthy = read(Health::Healthy);
        assert_eq!(healthy.type_url, "type.googleapis.com/istio.v1.HealthInformation");
        assert_eq!(healthy.error_detail, None);
        let reason = read(Health::Unhealthy("no answer".into())).error_detail.unwrap();
        assert_eq!((reason.code, reason.message.as_str()), (13, "no answer"));
    }

    #[test]
    fn the_first_resource_is_read() {
        let any = Any { type_url: "t".into(), value: vec![1].into() };
        let sotw = DiscoveryResponse {
            version_info: "v".into(),
            resources: vec![any.clone()],
            nonce: "n".into(),
            ..DiscoveryResponse::default()
        };
        let resource = Resource { resource: Some(any.clone()), ..Resource::default() };
        let delta = DeltaDiscoveryResponse {
            system_version_info: "v".into(),
            resources: vec![Resource::default(), resource],
            nonce: "n".into(),
            ..DeltaDiscoveryResponse::default()
        };
        let expected = Response { version: "v".into(), nonce: "n".into(), resource: Some(any) };
        assert_eq!(Variant::Sotw.response(sotw.encode_to_vec().into()).unwrap(), expected);
        assert_eq!(Variant::Delta.response(delta.encode_to_vec().into()).unwrap(), expected);
        assert!(Variant::Delta.response(Bytes::from_static(&[0xff])).is_err());
    }
}
