//! `Service` of the core group (its `spec`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a service is reached by and which pods are behind it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Its address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All its addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Name that an `ExternalName` service stands for.
    pub external_name: String,
    /// Whether pods that are not ready count as well.
    pub publish_not_ready_addresses: bool,
    /// `Local`: only endpoints of the client's node.
    pub internal_traffic_policy: String,
    /// Preference among endpoints.
    pub traffic_distribution: String,
    /// Addresses from outside.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// `ClientIP`: the same client reaches the same pod.
    pub session_affinity: String,
}

impl Service {
    /// Whether it has no address of its own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        let first = self.cluster_ips.first().unwrap_or(&self.cluster_ip);
        first.eq_ignore_ascii_case("none") || self.cluster_ip.eq_ignore_ascii_case("none")
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        if self.is_headless() {
            return Vec::new();
        }
        let mut all: Vec<&str> = self.cluster_ips.iter().map(String::as_str).collect();
        if all.is_empty() && !self.cluster_ip.is_empty() {
            all.push(&self.cluster_ip);
        }
        all
    }
}

/// One port.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name, which may begin with its protocol (`http-web`).
    pub name: String,
    /// Number that clients use.
    pub port: u16,
    /// Port of the pods.
    pub target_port: Option<TargetPort>,
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: String,
    /// Application protocol; wins over the name.
    pub app_protocol: Option<String>,
}

/// A port by number or by the name that the pod gives it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum TargetPort {
    /// Number.
    Number(u16),
    /// Name of a container port.
    Name(String),
}
