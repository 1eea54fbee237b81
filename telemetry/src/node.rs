//! Who this proxy is.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::log;

/// The variable of Envoy's environment that tells it, as JSON.
pub const VARIABLE: &str = "ISTIO_TELEMETRY_NODE";

/// Istio's node metadata, as far as telemetry uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Node {
    /// Node id, as in the bootstrap; made from the rest where it is missing.
    pub id: String,
    /// Pod or host.
    pub name: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// What owns the pod, `kubernetes://apis/apps/v1/namespaces/NS/deployments/NAME`.
    pub owner: String,
    /// Deployment, job ... or the name of a virtual machine's workload.
    pub workload_name: String,
    /// Cluster of the mesh.
    pub cluster_id: String,
    /// Mesh.
    pub mesh_id: String,
    /// Version of the proxy.
    pub istio_version: String,
    /// Addresses, joined by commas.
    pub instance_ips: String,
    /// Service account.
    pub service_account: String,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is not such an object.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let mut node: Self = serde_json::from_str(json)?;
        if node.id.is_empty() {
            let ip = node.instance_ips.split(',').next().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            let (name, namespace) = (&node.name, &node.namespace);
            node.id = format!("sidecar~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local");
        }
        Ok(node)
    }

    /// A label; empty where there is none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The node of this process. What is wrong with it is logged once; all is `unknown` then.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "Envoy's environment is what the agent sets for this")]
pub fn own() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| match std::env::var(VARIABLE) {
        Err(_) => {
            log::warn(&format!("{VARIABLE} is not set: this proxy's own labels are unknown"));
            Node::default()
        }
        Ok(json) => Node::parse(&json).unwrap_or_else(|error| {
            log::warn(&format!("{VARIABLE} is not usable: {error}; this proxy's own labels are unknown"));
            Node::default()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::Node;

    #[test]
    fn fields_have_the_names_of_node_metadata() {
        let node = Node::parse(
            r#"{"NAME":"a-1","NAMESPACE":"x","WORKLOAD_NAME":"a","CLUSTER_ID":"c","INSTANCE_IPS":"10.0.0.1,::1",
                "LABELS":{"app":"a"},"ELSE":1}"#,
        )
        .unwrap();
        assert_eq!((node.workload_name.as_str(), node.label("app"), node.label("version")), ("a", "a", ""));
        assert_eq!(node.id, "sidecar~10.0.0.1~a-1.x~x.svc.cluster.local");
        assert!(Node::parse("7").is_err() && Node::parse(r#"{"NAME":7}"#).is_err());
    }
}
