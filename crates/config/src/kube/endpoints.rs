//! `Endpoints` of the core group, the older form of `EndpointSlice`.

use serde::Deserialize;

use super::{Conditions, Endpoint, EndpointPort, EndpointSlice, TargetRef};

/// The endpoints of the service of the same name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Endpoints {
    /// Addresses and ports; every address of a subset has all of its ports.
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses with the same ports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Addresses that are ready.
    pub addresses: Vec<EndpointAddress>,
    /// Addresses that are not.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Their ports.
    pub ports: Vec<EndpointPort>,
}

/// One address.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The IP address.
    pub ip: String,
    /// Host name within a headless service.
    pub hostname: Option<String>,
    /// Node it is on.
    pub node_name: Option<String>,
    /// The pod.
    pub target_ref: Option<TargetRef>,
}

impl Endpoints {
    /// The same as slices, as Kubernetes itself mirrors them.
    pub fn as_slices(&self) -> impl Iterator<Item = EndpointSlice> {
        self.subsets.iter().map(|subset| {
            let ready = subset.addresses.iter().map(|address| address.as_endpoint(true));
            let others = subset.not_ready_addresses.iter().map(|address| address.as_endpoint(false));
            EndpointSlice {
                address_type: String::new(),
                endpoints: ready.chain(others).collect(),
                ports: subset.ports.clone(),
            }
        })
    }
}

impl EndpointAddress {
    fn as_endpoint(&self, is_ready: bool) -> Endpoint {
        Endpoint {
            addresses: vec![self.ip.clone()],
            conditions: Conditions { ready: Some(is_ready), serving: None, terminating: Some(false) },
            hostname: self.hostname.clone(),
            node_name: self.node_name.clone(),
            zone: None,
            target_ref: self.target_ref.clone(),
        }
    }
}
