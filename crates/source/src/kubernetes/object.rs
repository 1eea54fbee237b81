//! An object as the API server gives it, cut down to what the mesh uses before
//! it is kept: there may be very many.

use std::sync::Arc;

use config::{Key, Kind, Object, Problem, Severity, yaml};
use serde_json::{Map, Value};

use super::Options;

/// What `kubectl apply` keeps of an object in the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Values of Secrets that are credentials.
const CREDENTIALS: [&str; 10] = [
    "cert",
    "key",
    "cacert",
    "crl",
    "tls.crt",
    "tls.key",
    "tls.ocsp-staple",
    "ca.crt",
    "ca.crl",
    ".dockerconfigjson",
];

/// Values of ConfigMaps that are certificates that sign others.
const ROOTS: [&str; 2] = ["cacert", "ca.crt"];

/// What was seen of an object.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its name.
    pub(super) key: Key,
    /// It, if it can be used and is for this control plane.
    pub(super) object: Option<Arc<Object>>,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// Reads an object. One that our webhook would have refused is in force all the
/// same when the API server took it, as with Istio: translation is used to such.
pub(super) fn decode(kind: Kind, mut value: Value, options: &Options) -> Seen {
    let key = key(kind, &value["metadata"]);
    if !is_wanted(kind, &value, &options.revision) {
        return Seen { key, object: None, problems: Vec::new() };
    }
    trim(kind, &mut value);
    let contents = yaml::read_live(&options.cluster, kind, value);
    let mut problems = contents.problems;
    // Fields that are newer than our tables are nobody's mistake.
    problems.retain(|problem| kind.is_istio() || problem.severity == Severity::Error);
    Seen { key, object: contents.objects.into_iter().next().map(Arc::new), problems }
}

fn key(kind: Kind, metadata: &Value) -> Key {
    let text = |name: &str| metadata[name].as_str().unwrap_or_default().into();
    let namespace = if kind.is_namespaced() { text("namespace") } else { Arc::from("") };
    Key { kind, namespace, name: text("name") }
}

/// Whether the mesh can have a use for it.
fn is_wanted(kind: Kind, value: &Value, revision: &str) -> bool {
    // Of ConfigMaps, too, certificates are all that is used.
    let values: &[&str] = match kind {
        Kind::Secret => &CREDENTIALS,
        Kind::ConfigMap => &ROOTS,
        _ => &[],
    };
    if !values.is_empty() {
        let data = value["data"].as_object();
        return data.is_some_and(|data| values.iter().any(|name| data.contains_key(*name)));
    }
    let label = value["metadata"]["labels"][names::label::REVISION].as_str();
    !kind.is_istio() || revision.is_empty() || label.is_none_or(|label| label == revision)
}

fn trim(kind: Kind, value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        match kind {
            // They change often, and say nothing to the mesh.
            Kind::Node | Kind::EndpointSlice => drop(metadata.remove("annotations")),
            Kind::Pod => {
                annotations.into_iter().for_each(|all| all.retain(|name, _| name.contains("istio.io/")))
            }
            _ => annotations.into_iter().for_each(|all| drop(all.remove(LAST_APPLIED))),
        }
    }
    match kind {
        Kind::Secret | Kind::ConfigMap => {
            let data = value.get_mut("data").and_then(Value::as_object_mut);
            data.into_iter().for_each(|data| data.retain(|name, _| CREDENTIALS.contains(&name.as_str())));
        }
        Kind::Pod => trim_pod(value),
        // Its images and conditions may be tens of kilobytes.
        Kind::Node => {
            let version = value["status"]["nodeInfo"]["kubeletVersion"].take();
            let mut addresses = value["status"]["addresses"].take();
            let all = addresses.as_array_mut();
            all.into_iter().for_each(|all| all.retain(|address| address["type"] == "ExternalIP"));
            value["status"] = serde_json::json!({
                "nodeInfo": {"kubeletVersion": version.as_str().unwrap_or_default()},
                "addresses": addresses.as_array().map_or(&[][..], Vec::as_slice),
            });
            value.as_object_mut().into_iter().for_each(|node| drop(node.remove("spec")));
        }
        _ => {}
    }
}

/// Of what a pod runs, the mesh uses the ports that containers name, and whether it is ready.
fn trim_pod(pod: &mut Value) {
    let keep = |value: &mut Value, fields: &[&str]| {
        value
            .as_object_mut()
            .into_iter()
            .for_each(|map| map.retain(|name, _| fields.contains(&name.as_str())));
    };
    if let Some(spec) = pod.get_mut("spec") {
        let fields = [
            "serviceAccountName",
            "nodeName",
            "hostname",
            "subdomain",
            "hostNetwork",
            "containers",
            "initContainers",
        ];
        keep(spec, &fields);
        for list in ["containers", "initContainers"] {
            let list = spec.get_mut(list).and_then(Value::as_array_mut);
            list.into_iter().flatten().for_each(|container| keep(container, &["name", "ports"]));
        }
        // Those without ports are as if they were not there.
        spec.as_object_mut().into_iter().for_each(drop_portless);
    }
    if let Some(status) = pod.get_mut("status") {
        keep(status, &["phase", "podIP", "podIPs", "conditions"]);
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        conditions.into_iter().for_each(|all| {
            all.retain(|condition| condition["type"] == "Ready");
            all.iter_mut().for_each(|condition| keep(condition, &["type", "status"]));
        });
    }
}

fn drop_portless(spec: &mut Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        let list = spec.get_mut(list).and_then(Value::as_array_mut);
        list.into_iter().for_each(|list| {
            list.retain(|container| container["ports"].as_array().is_some_and(|ports| !ports.is_empty()));
        });
    }
}

#[cfg(test)]
mod tests {
    use config::Spec;
    use serde_json::json;

    use super::*;

    fn decoded(kind: Kind, value: Value) -> Seen {
        decode(kind, value, &Options { revision: "canary".into(), cluster: "c".into(), namespace: None })
    }

    #[test]
    fn a_pod_is_cut_down() {
        let seen = decoded(
            Kind::Pod,
            json!({
                "metadata": {
                    "name": "a", "namespace": "b", "labels": {"app": "a"}, "managedFields": [{}],
                    "annotations": {"sidecar.istio.io/inject": "true", "other": "x"},
                },
                "spec": {
                    "containers": [
                        {"name": "c", "image": "d", "ports": [{"name": "http", "containerPort": 80}]},
                        {"name": "e", "image": "f"},
                    ],
                    "volumes": [{"name": "v"}],
                },
                "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Initialized", "status": "True"},
                ]},
            }),
        );
        let object = seen.object.unwrap();
        assert_eq!(object.meta.annotations.keys().collect::<Vec<_>>(), ["sidecar.istio.io/inject"]);
        let Spec::Pod(pod) = &object.spec else { panic!() };
        assert_eq!((pod.spec.containers.len(), pod.status.conditions.len()), (1, 1));
        assert_eq!(pod.port_by_name("http"), Some(80));
        assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    }

    #[test]
    fn objects_of_other_revisions_are_not_ours() {
        let of = |revision: Value| {
            let value = json!({
                "metadata": {"name": "a", "namespace": "b", "labels": {"istio.io/rev": revision}},
                "spec": {"host": "c.example.com"},
            });
            decoded(Kind::DestinationRule, value).object.is_some()
        };
        assert!(of(json!("canary")) && of(Value::Null) && !of(json!("other")));
    }

    #[test]
    fn secrets_that_hold_no_credentials_are_left_out() {
        let secret = |data: Value| {
            decoded(Kind::Secret, json!({"metadata": {"name": "a", "namespace": "b"}, "data": data})).object
        };
        assert!(secret(json!({"password": "eA=="})).is_none());
        let object = secret(json!({"ca.crt": "eA==", "password": "eA=="})).unwrap();
        let Spec::Secret(secret) = &object.spec else { panic!() };
        assert_eq!(secret.data.keys().collect::<Vec<_>>(), ["ca.crt"]);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_a_problem() {
        let seen = decoded(
            Kind::DestinationRule,
            json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"host": 1}}),
        );
        assert!(seen.object.is_none());
        assert!(
            seen.problems[0].to_string().starts_with("c: DestinationRule b/a: spec.host:"),
            "{:?}",
            seen.problems
        );
    }
}
