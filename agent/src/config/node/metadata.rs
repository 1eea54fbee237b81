//! Metadata of the node: what the pod and the environment tell, in the types
//! that istiod expects. Booleans and lists are strings for historical reasons.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Label that names a revision of the pod's owner, which differs with each.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// The object whose fields are labels that do not change with the pod.
const LABELS: &str = "LABELS";
/// Fields that istiod reads as booleans.
const BOOLEANS: [&str; 9] = [
    "DISABLE_HBONE_SEND",
    "DNS_AUTO_ALLOCATE",
    "DNS_CAPTURE",
    "ENABLE_HBONE",
    "ENABLE_SELF_DISCOVERY",
    "ENVOY_SKIP_DEPRECATED_LOGS",
    "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
    "INBOUND_LISTENER_EXACT_BALANCE",
    "OUTBOUND_LISTENER_EXACT_BALANCE",
];

/// Where the metadata comes from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Labels of the pod.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: &'a BTreeMap<String, String>,
    /// Variables `ISTIO_META_NAME`, by name.
    pub meta: BTreeMap<String, String>,
    /// Objects of variables `ISTIO_METAJSON_NAME`, by name.
    pub objects: BTreeMap<String, Map<String, Value>>,
}

/// The metadata that comes from them, and every value that cannot be read.
#[must_use]
pub fn build(sources: Sources<'_>) -> (Map<String, Value>, Vec<String>) {
    let mut all: Map<String, Value> =
        sources.meta.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let mut errors = Vec::new();
    let static_labels = sources.objects.get(LABELS).map(strings).unwrap_or_default();
    for object in sources.objects.into_values() {
        all.extend(object);
    }
    for name in BOOLEANS {
        if let Some(Value::String(text)) = all.get(name) {
            match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => drop(all.insert(name.into(), json!("true"))),
                "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => {}
                text => errors.push(format!("ISTIO_META_{name}={text:?}: expected true or false")),
            }
        }
    }
    if let Some(Value::String(text)) = all.get("POD_PORTS") {
        match pod_ports(text) {
            Ok(ports) => drop(all.insert("POD_PORTS".into(), json!(ports))),
            Err(error) => errors.push(format!(
                "ISTIO_META_POD_PORTS={text:?}: expected a JSON list of ports, each with containerPort: {error}"
            )),
        }
    }
    extend(&mut all, "ANNOTATIONS", sources.annotations);
    extend(&mut all, LABELS, &static_labels);
    extend(&mut all, "STATIC_LABELS", &static_labels);
    let mut labels = sources.labels.clone();
    labels.remove(TEMPLATE_HASH);
    if let Some(locality) = super::locality_label(&labels).or_else(|| super::locality_label(&static_labels)) {
        labels.insert(names::label::LOCALITY.into(), locality);
    }
    extend(&mut all, LABELS, &labels);
    (all, errors)
}

/// Lays `more` over the object of that name; nothing is added for nothing.
fn extend(all: &mut Map<String, Value>, name: &str, more: &BTreeMap<String, String>) {
    if more.is_empty() {
        return;
    }
    let more = more.iter().map(|(key, value)| (key.clone(), json!(value)));
    match all.get_mut(name) {
        Some(Value::Object(object)) => object.extend(more),
        _ => drop(all.insert(name.into(), Value::Object(more.collect()))),
    }
}

fn strings(object: &Map<String, Value>) -> BTreeMap<String, String> {
    object.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// A named port of the pod.
#[derive(Serialize, Deserialize)]
struct PodPort {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "containerPort")]
    container_port: u16,
    #[serde(default)]
    protocol: String,
}

/// The list of ports on one line.
fn pod_ports(text: &str) -> Result<String, serde_json::Error> {
    let ports: Vec<PodPort> = serde_json::from_str(text)?;
    serde_json::to_string(&ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn built(
        labels: &[(&str, &str)],
        meta: &[(&str, &str)],
        objects: &[(&str, Value)],
    ) -> (Value, Vec<String>) {
        let objects =
            objects.iter().map(|(name, value)| ((*name).into(), value.as_object().unwrap().clone()));
        let (all, errors) = build(Sources {
            labels: &map(labels),
            annotations: &map(&[("x", "y")]),
            meta: map(meta),
            objects: objects.collect(),
        });
        (Value::Object(all), errors)
    }

    #[test]
    fn variables_and_objects_stand_on_the_top_level() {
        let (all, errors) = built(
            &[("app", "a"), ("pod-template-hash", "1")],
            &[("OWNER", "kubernetes://a"), ("DNS_CAPTURE", "1"), ("MINE", "m")],
            &[("EXTRA", json!({"MINE": {"deep": [1]}, "more": "x"}))],
        );
        assert!(errors.is_empty());
        assert_eq!(
            all,
            json!({
                "ANNOTATIONS": {"x": "y"}, "DNS_CAPTURE": "true", "LABELS": {"app": "a"},
                "MINE": {"deep": [1]}, "OWNER": "kubernetes://a", "more": "x",
            })
        );
    }

    #[test]
    fn labels_of_a_variable_are_static_and_those_of_the_pod_win() {
        let (all, _) =
            built(&[("app", "pod")], &[], &[("LABELS", json!({"app": "vm", "istio-locality": "r.z"}))]);
        assert_eq!(all["STATIC_LABELS"], json!({"app": "vm", "istio-locality": "r.z"}));
        assert_eq!(all["LABELS"], json!({"app": "pod", "istio-locality": "r/z"}));
    }

    #[test]
    fn ports_are_one_line_of_json() {
        let text = "[\n  {\"containerPort\": 80, \"name\": \"http\", \"protocol\": \"TCP\"}\n  ,{\"containerPort\":9}\n]";
        let (all, errors) = built(&[], &[("POD_PORTS", text)], &[]);
        assert!(errors.is_empty());
        assert_eq!(
            all["POD_PORTS"],
            r#"[{"name":"http","containerPort":80,"protocol":"TCP"},{"containerPort":9,"protocol":""}]"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let (_, errors) = built(&[], &[("ENABLE_HBONE", "maybe"), ("POD_PORTS", "{}")], &[]);
        assert_eq!(errors[0], "ISTIO_META_ENABLE_HBONE=\"maybe\": expected true or false");
        assert!(errors[1].starts_with("ISTIO_META_POD_PORTS=\"{}\": expected a JSON list"), "{}", errors[1]);
    }
}
