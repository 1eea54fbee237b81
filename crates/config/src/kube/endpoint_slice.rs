//! `EndpointSlice` of `discovery.k8s.io`.

use serde::Deserialize;

/// Some of the endpoints of a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports that all of them have.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses; they are interchangeable.
    pub addresses: Vec<String>,
    /// Whether it can be used.
    pub conditions: Conditions,
    /// Host name within a headless service.
    pub hostname: Option<String>,
    /// Node it runs on.
    pub node_name: Option<String>,
    /// Zone it runs in.
    pub zone: Option<String>,
    /// The pod.
    pub target_ref: Option<TargetRef>,
}

/// State of an endpoint; what is not said counts as good.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Conditions {
    /// It is ready.
    pub ready: Option<bool>,
    /// It serves, whether or not it is about to end.
    pub serving: Option<bool>,
    /// It is about to end.
    pub terminating: Option<bool>,
}

/// An object that an endpoint stands for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct TargetRef {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the service's port.
    pub name: Option<String>,
    /// Number at the endpoint.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// Application protocol.
    pub app_protocol: Option<String>,
}
