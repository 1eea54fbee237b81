//! `Pod` of the core group.

use serde::Deserialize;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Pod {
    /// What should run.
    pub spec: PodSpec,
    /// What does.
    pub status: PodStatus,
}

/// What should run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its service account; empty means `default`.
    pub service_account_name: String,
    /// Node it runs on.
    pub node_name: String,
    /// Host name.
    pub hostname: String,
    /// Service that gives it a domain.
    pub subdomain: String,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Containers that start first.
    pub init_containers: Vec<Container>,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Ports that it declares.
    pub ports: Vec<ContainerPort>,
}

/// A declared port.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, for services that refer to it.
    pub name: String,
    /// Number.
    pub container_port: u16,
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: String,
}

/// What runs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// Its conditions.
    pub conditions: Vec<PodCondition>,
}

/// An address.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct PodCondition {
    /// Which.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Pod {
    /// Its service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        let name = self.spec.service_account_name.as_str();
        if name.is_empty() { "default" } else { name }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let status = &self.status;
        let first =
            (status.pod_ips.is_empty() && !status.pod_ip.is_empty()).then_some(status.pod_ip.as_str());
        first.into_iter().chain(status.pod_ips.iter().map(|ip| ip.ip.as_str()))
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The number of the container port of that name.
    #[must_use]
    pub fn port_by_name(&self, name: &str) -> Option<u16> {
        let containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        containers
            .flat_map(|container| &container.ports)
            .find(|port| port.name == name)
            .map(|port| port.container_port)
    }
}
