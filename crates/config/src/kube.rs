//! Kubernetes objects, cut down to what the mesh uses.

mod endpoint_slice;
mod endpoints;
mod pod;
mod secret;
mod service;
mod service_entry;

use serde::Deserialize;

pub use endpoint_slice::{Conditions, Endpoint, EndpointPort, EndpointSlice, TargetRef};
pub use endpoints::{EndpointAddress, EndpointSubset, Endpoints};
pub use pod::{Container, ContainerPort, Pod, PodCondition, PodIp, PodSpec, PodStatus};
pub use secret::{Flaw, Pair, Roots, Secret, TLS_TYPE};
pub use service::{Service, ServicePort, TargetPort};
pub use service_entry::ServiceEntry;

/// A node; the mesh uses its labels only.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Node {}

/// A namespace; the mesh uses its labels only.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Namespace {}

/// A service account; the mesh uses its name only.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ServiceAccount {}
