//! Kubernetes objects, cut down to what the mesh uses.

mod config_map;
mod endpoint_slice;
mod endpoints;
mod pod;
mod secret;
mod service;
mod service_entry;
mod workload_entry;

use serde::Deserialize;

pub use config_map::ConfigMap;
pub use endpoint_slice::{Conditions, Endpoint, EndpointPort, EndpointSlice, TargetRef};
pub use endpoints::{EndpointAddress, EndpointSubset, Endpoints};
pub use pod::{Container, ContainerPort, Pod, PodCondition, PodIp, PodSpec, PodStatus};
pub use secret::{Flaw, Pair, Roots, Secret, TLS_TYPE};
pub use service::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus, TargetPort,
};
pub use service_entry::ServiceEntry;
pub use workload_entry::{Condition, WorkloadEntry, WorkloadStatus};

/// A node; of its labels the mesh takes where it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Node {
    /// What the cluster says of it.
    pub status: NodeStatus,
}

/// What the cluster says of a node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What it runs.
    pub node_info: NodeInfo,
    /// Where it is reached.
    pub addresses: Vec<NodeAddress>,
}

/// Where a node is reached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and others.
    #[serde(rename = "type")]
    pub address_type: String,
    /// The address.
    pub address: String,
}

impl Node {
    /// Its first address from outside of the cluster.
    #[must_use]
    pub fn external(&self) -> Option<&str> {
        let is_external = |one: &&NodeAddress| one.address_type == "ExternalIP" && !one.address.is_empty();
        self.status.addresses.iter().find(is_external).map(|one| one.address.as_str())
    }
}

/// What a node runs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// Version of the kubelet, `v1.33.1`: it says which kinds of containers there are.
    pub kubelet_version: String,
}

/// A namespace; the mesh uses its labels only.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Namespace {}

/// A service account; the mesh uses its name only.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ServiceAccount {}
