//! `Service` of the core group, with the part of its status that counts.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use serde::Deserialize;

/// A service of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Service {
    /// What the user wrote.
    pub spec: ServiceSpec,
    /// What its load balancer has.
    pub status: ServiceStatus,
}

impl Deref for Service {
    type Target = ServiceSpec;

    fn deref(&self) -> &ServiceSpec {
        &self.spec
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut ServiceSpec {
        &mut self.spec
    }
}

/// What the cluster knows of a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Its load balancer.
    pub load_balancer: LoadBalancerStatus,
}

/// A load balancer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Where it is reached.
    pub ingress: Vec<LoadBalancerIngress>,
}

/// Where a load balancer is reached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct LoadBalancerIngress {
    /// Its address; may be empty.
    pub ip: String,
    /// Its host name, where it has no address.
    pub hostname: String,
}

/// What a service is reached by and which pods are behind it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
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
    /// Addresses and host names that it is reached by from outside: those of its
    /// load balancer, then those that the user gives.
    pub fn external(&self) -> impl Iterator<Item = &str> {
        let is_balanced = self.spec.service_type == "LoadBalancer";
        let ingress = self.status.load_balancer.ingress.iter().filter(move |_| is_balanced);
        let balancer = ingress.map(|one| if one.ip.is_empty() { &one.hostname } else { &one.ip });
        let all = balancer.chain(&self.spec.external_ips).map(String::as_str);
        all.filter(|address| !address.is_empty())
    }
}

impl ServiceSpec {
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
    /// Port of the nodes, of `NodePort` and `LoadBalancer`; 0: none.
    pub node_port: u16,
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
