//! Between the protocol's messages and [`Request`] and [`Answer`].

mod pieces;

use std::collections::BTreeMap;

use names::TypeUrl;
use proto::Any;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as DeltaResource,
};

pub use self::pieces::{LARGE, PIECE, Pieces};
use crate::{Answer, Request};

/// Reads a state-of-the-world request.
#[must_use]
pub fn from_sotw(request: DiscoveryRequest) -> Request {
    Request {
        type_url: request.type_url.as_str().into(),
        nonce: request.response_nonce,
        error: request.error_detail.map(|status| status.message),
        subscribe: request.resource_names,
        unsubscribe: Vec::new(),
        initial_versions: BTreeMap::new(),
    }
}

/// Reads an incremental request.
#[must_use]
pub fn from_delta(request: DeltaDiscoveryRequest) -> Request {
    Request {
        type_url: request.type_url.as_str().into(),
        nonce: request.response_nonce,
        error: request.error_detail.map(|status| status.message),
        subscribe: request.resource_names_subscribe,
        unsubscribe: request.resource_names_unsubscribe,
        initial_versions: request.initial_resource_versions.into_iter().collect(),
    }
}

fn any(type_url: &TypeUrl, body: bytes::Bytes) -> Any {
    Any { type_url: type_url.as_str().into(), value: body }
}

/// Writes a state-of-the-world response.
#[must_use]
pub fn to_sotw(answer: Answer) -> DiscoveryResponse {
    let Answer { type_url, nonce, version, resources, removed: _ } = answer;
    DiscoveryResponse {
        version_info: version,
        resources: resources.into_iter().map(|resource| any(&type_url, resource.body)).collect(),
        type_url: type_url.as_str().into(),
        nonce,
        ..DiscoveryResponse::default()
    }
}

/// Writes an incremental response.
#[must_use]
pub fn to_delta(answer: Answer) -> DeltaDiscoveryResponse {
    let Answer { type_url, nonce, version, resources, removed } = answer;
    let resource = |resource: crate::Resource| DeltaResource {
        name: resource.name.to_string(),
        version: resource.version_text(),
        resource: Some(any(&type_url, resource.body)),
        ..DeltaResource::default()
    };
    DeltaDiscoveryResponse {
        system_version_info: version,
        resources: resources.into_iter().map(resource).collect(),
        type_url: type_url.as_str().into(),
        removed_resources: removed.into_iter().map(|name| name.to_string()).collect(),
        nonce,
        ..DeltaDiscoveryResponse::default()
    }
}
