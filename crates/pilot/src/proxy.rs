//! Who asks: a proxy, as its node message describes it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::NodeId;
use prost_types::value::Kind as Value;
use proto::envoy::config::core::v3::{Locality, Node};

/// The node message is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id.
    #[error(transparent)]
    Id(#[from] names::node::Error),
}

/// How connections come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interception {
    /// The kernel redirects them.
    Redirect,
    /// The kernel hands them over with their addresses as they are.
    Tproxy,
    /// They do not come by themselves.
    None,
}

/// What a proxy stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// A workload of its own.
    Sidecar,
    /// Nothing: it is a gateway.
    Router,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its id.
    pub id: NodeId,
    /// What it stands beside.
    pub kind: ProxyKind,
    /// The whole metadata of its node message.
    pub metadata: prost_types::Struct,
    /// Network it is in; may be empty.
    pub network: String,
    /// Whether it answers DNS queries of its workload (`ISTIO_META_DNS_CAPTURE`).
    pub dns_capture: bool,
    /// Names of extensions that its Envoy has; empty when it does not say.
    pub extensions: Vec<String>,
    /// Namespace of its workload.
    pub namespace: String,
    /// Service account of its workload; may be empty.
    pub service_account: String,
    /// Labels of its workload.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, the main one first.
    pub ips: Vec<IpAddr>,
    /// Cluster it is in.
    pub cluster_id: String,
    /// Mesh it is in.
    pub mesh_id: String,
    /// Node it runs on; may be empty.
    pub node_name: String,
    /// Version of its agent.
    pub istio_version: String,
    /// How connections come to it.
    pub interception: Interception,
    /// Where it is.
    pub locality: Locality,
    /// An application that speaks xDS itself, by gRPC's library.
    pub is_proxyless: bool,
    /// Whether HTTP/1.0 is accepted (`ISTIO_META_HTTP10`).
    pub http10: bool,
    /// Idle time of TCP connections, as text (`ISTIO_META_IDLE_TIMEOUT`).
    pub idle_timeout: Option<proto::wkt::Duration>,
}

impl Proxy {
    /// Reads a node message.
    ///
    /// # Errors
    /// When the id has another form than `TYPE~IP~POD.NAMESPACE~DOMAIN`.
    pub fn from_node(node: &Node) -> Result<Self, Error> {
        let id: NodeId = node.id.parse()?;
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let get =
            |name: &str| fields.and_then(|fields| fields.get(name)).and_then(|value| value.kind.as_ref());
        let text = |name: &str| match get(name) {
            Some(Value::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        let is_true = |name: &str| match get(name) {
            Some(Value::BoolValue(is)) => *is,
            Some(Value::StringValue(text)) => matches!(text.as_str(), "1" | "true"),
            _ => false,
        };
        let labels = match get("LABELS") {
            Some(Value::StructValue(labels)) => labels
                .fields
                .iter()
                .filter_map(|(key, value)| match &value.kind {
                    Some(Value::StringValue(value)) => Some((key.clone(), value.clone())),
                    _ => None,
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        let mut ips = vec![id.ip];
        for ip in text("INSTANCE_IPS").split(',').filter_map(|ip| ip.trim().parse().ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        let namespace = text("NAMESPACE");
        Ok(Self {
            namespace: if namespace.is_empty() { id.namespace.clone() } else { namespace },
            service_account: text("SERVICE_ACCOUNT"),
            labels,
            ips,
            cluster_id: text("CLUSTER_ID"),
            mesh_id: text("MESH_ID"),
            node_name: text("NODE_NAME"),
            istio_version: text("ISTIO_VERSION"),
            interception: match text("INTERCEPTION_MODE").as_str() {
                "TPROXY" => Interception::Tproxy,
                "NONE" => Interception::None,
                _ => Interception::Redirect,
            },
            locality: node.locality.clone().unwrap_or_default(),
            is_proxyless: text("GENERATOR") == "grpc",
            http10: is_true("HTTP10"),
            kind: if node.id.starts_with("router~") { ProxyKind::Router } else { ProxyKind::Sidecar },
            metadata: node.metadata.clone().unwrap_or_default(),
            network: text("NETWORK"),
            dns_capture: is_true("DNS_CAPTURE"),
            extensions: node.extensions.iter().map(|extension| extension.name.clone()).collect(),
            idle_timeout: text("IDLE_TIMEOUT").parse().ok(),
            id,
        })
    }

    /// Whether its Envoy has an extension; one that lists none is stock Envoy.
    #[must_use]
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|known| known == name)
    }

    /// A label of the workload.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}
