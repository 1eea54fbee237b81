//! Who asks: a proxy, as its node message describes it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use names::NodeId;
use prost_types::value::Kind as Value;
use proto::envoy::config::core::v3::{Locality, Node};
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::mesh::v1alpha1::proxy_config::ProxyStatsMatcher;

/// The node message is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id.
    #[error(transparent)]
    Id(#[from] names::node::Error),
}

/// Further addresses of a proxy that count; a pod has one of each family for each network.
const MAX_ADDRESSES: usize = 16;

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
    /// Name that it bears in traces (`cluster` of its node message).
    pub cluster: String,
    /// Settings that its agent was started with (`PROXY_CONFIG`).
    pub config: Option<Arc<ProxyConfig>>,
    /// Idle time of TCP connections, as text (`ISTIO_META_IDLE_TIMEOUT`).
    pub idle_timeout: Option<proto::wkt::Duration>,
}

impl Proxy {
    /// `POD.NAMESPACE`, as people name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.id.name, self.id.namespace)
    }

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
        for ip in text("INSTANCE_IPS").split(',').filter_map(|ip| ip.trim().parse().ok()).take(MAX_ADDRESSES)
        {
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
            cluster: node.cluster.clone(),
            config: fields.and_then(|fields| fields.get("PROXY_CONFIG")).and_then(config).map(Arc::new),
            id,
        })
    }

    /// Whether its Envoy has an extension; one that lists none is stock Envoy.
    #[must_use]
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|known| known == name)
    }

    /// Text that it says of itself under a key of its metadata; empty when it does not.
    #[must_use]
    pub fn says(&self, key: &str) -> &str {
        match self.metadata.fields.get(key).and_then(|value| value.kind.as_ref()) {
            Some(Value::StringValue(text)) => text,
            _ => "",
        }
    }

    /// Whether its Envoy has the module for Istio's metrics: the metadata tells the version.
    #[must_use]
    pub fn has_module(&self) -> bool {
        !self.says("TELEMETRY_MODULE").is_empty()
    }

    /// Whether its Envoy keeps other statistics than Istio's default: by `proxyStatsMatcher`, by
    /// annotations, or by a bootstrap of its own.
    #[must_use]
    pub fn has_own_statistics(&self) -> bool {
        use names::annotation::{
            BOOTSTRAP_OVERRIDE, STATS_INCLUSION_PREFIXES, STATS_INCLUSION_REGEXPS, STATS_INCLUSION_SUFFIXES,
        };
        let asks =
            [BOOTSTRAP_OVERRIDE, STATS_INCLUSION_PREFIXES, STATS_INCLUSION_REGEXPS, STATS_INCLUSION_SUFFIXES];
        let matcher = self.config.as_ref().and_then(|config| config.proxy_stats_matcher.as_ref());
        asks.into_iter().any(|name| self.annotation(name).is_some_and(|text| !text.is_empty()))
            || matcher.is_some_and(|matcher| *matcher != ProxyStatsMatcher::default())
    }

    /// An annotation of the pod, as the agent was told of it.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.fields.get("ANNOTATIONS")?;
        let Some(Value::StructValue(annotations)) = &annotations.kind else { return None };
        match &annotations.fields.get(key)?.kind {
            Some(Value::StringValue(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether its agent is of a version of Istio, `1.MINOR`, or a later one;
    /// one that says nothing of the kind counts as new.
    #[must_use]
    pub fn is_since(&self, minor: u32) -> bool {
        let mut parts = self.istio_version.split(['.', '-', '_']).map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(own))) if major > 0 => (major, own) >= (1, minor),
            _ => true,
        }
    }

    /// Whether it says yes under a key of its metadata, as a word or as such.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        match self.metadata.fields.get(key).and_then(|value| value.kind.as_ref()) {
            Some(Value::BoolValue(is)) => *is,
            Some(Value::StringValue(text)) => matches!(text.as_str(), "1" | "true"),
            _ => false,
        }
    }

    /// A number that it gives under a key of its metadata, as digits or as such.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.fields.get(key)?.kind.as_ref()? {
            Value::NumberValue(number) => Some(*number),
            Value::StringValue(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A label of the workload.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// Settings in metadata; `None` when they are no such settings.
fn config(value: &prost_types::Value) -> Option<ProxyConfig> {
    serde_json::from_value(json(value)).ok()
}

fn json(value: &prost_types::Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Value::NullValue(_)) => serde_json::Value::Null,
        Some(Value::BoolValue(value)) => (*value).into(),
        // Whole numbers are written without a fraction, which fields of that kind want.
        Some(Value::NumberValue(number)) => {
            let whole = *number as i64;
            if whole as f64 == *number { whole.into() } else { (*number).into() }
        }
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Value::StructValue(fields)) => {
            fields.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect()
        }
    }
}
