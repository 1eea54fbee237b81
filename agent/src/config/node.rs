//! What Envoy, and through it istiod, is told about the proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::{NodeId, NodeType};
use serde_json::{Map, Value, json};

/// The node of the bootstrap.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its service cluster.
    pub cluster: String,
    /// Region, zone and sub-zone, as far as known.
    pub locality: Vec<String>,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// All addresses, the most important first.
    pub ips: Vec<IpAddr>,
}

impl Node {
    /// Kind of proxy.
    #[must_use]
    pub fn node_type(&self) -> NodeType {
        self.id.node_type
    }

    /// The node as JSON of Envoy's API.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let names = ["region", "zone", "sub_zone"];
        let locality: Map<String, Value> = names
            .iter()
            .zip(&self.locality)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "id": self.id.to_string(),
            "cluster": self.cluster,
            "locality": locality,
            "metadata": self.metadata,
        })
    }
}

/// The metadata that comes from the pod and the environment.
///
/// `meta` are the `ISTIO_META_` variables, `meta_json` the objects of the
/// `ISTIO_METAJSON_` ones, whose fields stand on the top level.
#[must_use]
pub fn metadata(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
    meta_json: Vec<Map<String, Value>>,
) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in meta {
        all.insert(name, Value::String(value));
    }
    for object in meta_json {
        all.extend(object);
    }
    if !annotations.is_empty() {
        all.insert("ANNOTATIONS".into(), json!(annotations));
    }
    // It names a revision of the pod's owner, which matters to nobody and differs with each.
    let labels: BTreeMap<&String, &String> =
        labels.iter().filter(|(name, _)| *name != "pod-template-hash").collect();
    if !labels.is_empty() {
        all.insert("LABELS".into(), json!(labels));
    }
    all
}

/// Region, zone and sub-zone of a label `region.zone.sub-zone`.
#[must_use]
pub fn locality(label: Option<&String>) -> Vec<String> {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Vec::new() };
    let separator = if label.contains('/') { '/' } else { '.' };
    label.splitn(3, separator).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_label_has_up_to_three_parts() {
        assert_eq!(locality(Some(&"r.z.s".into())), ["r", "z", "s"]);
        assert_eq!(locality(Some(&"r/z.1".into())), ["r", "z.1"]);
        assert!(locality(None).is_empty());
    }
}
