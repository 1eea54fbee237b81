//! Objects in force: `/debug/configz`, `/debug/resourcesz` and `/debug/sourcez`.

use config::{Kind, Object, Spec, Store, digest};
use serde_json::{Map, Value, json};

/// `/debug/configz`: Istio's objects as the API server of Kubernetes writes them.
#[must_use]
pub fn configz(store: &Store) -> Value {
    store.objects().filter(|object| object.key.kind.is_istio()).map(|object| of_object(object)).collect()
}

/// One object.
#[must_use]
pub fn of_object(object: &Object) -> Value {
    let kind = object.key.kind;
    let version = kind.versions().first().copied().unwrap_or_default();
    let meta = &object.meta;
    let mut metadata = Map::new();
    metadata.insert("name".into(), (*object.key.name).into());
    if kind.is_namespaced() {
        metadata.insert("namespace".into(), (*object.key.namespace).into());
    }
    metadata.insert("creationTimestamp".into(), meta.creation_timestamp.clone().into());
    for (name, texts) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !texts.is_empty() {
            metadata.insert(name.into(), json!(texts));
        }
    }
    let mut whole = Map::new();
    whole.insert("kind".into(), kind.as_str().into());
    whole.insert("apiVersion".into(), format!("{}/{version}", kind.group()).into());
    whole.insert("metadata".into(), metadata.into());
    whole.insert("spec".into(), digest::json(&object.spec));
    if let Spec::ServiceEntry(entry) = &object.spec {
        let status = serde_json::to_value(&entry.status).unwrap_or_default();
        if status.as_object().is_some_and(|fields| !fields.is_empty()) {
            whole.insert("status".into(), status);
        }
    }
    whole.into()
}

/// `/debug/resourcesz`: kinds of objects of Istio.
#[must_use]
pub fn kinds() -> Value {
    let own = Kind::ALL.iter().filter(|kind| kind.is_istio());
    let row = |kind: &Kind| {
        let version = kind.versions().first().copied().unwrap_or_default();
        json!({ "group": kind.group(), "version": version, "kind": kind.as_str() })
    };
    own.map(row).collect()
}

/// Where objects were written.
#[must_use]
pub fn places(store: &Store) -> Value {
    // Names of those that hold keys are not for everybody, and this page is.
    let is_shown =
        |object: &&std::sync::Arc<Object>| !matches!(object.key.kind, Kind::Secret | Kind::ConfigMap);
    let place = |object: &std::sync::Arc<Object>| {
        json!({
            "kind": object.key.kind.as_str(),
            "namespace": &*object.key.namespace,
            "name": &*object.key.name,
            "position": object.position.to_string(),
        })
    };
    store.objects().filter(is_shown).map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::yaml;

    use super::*;

    fn store(text: &str) -> Store {
        let mut store = Store::default();
        for object in yaml::read("a.yaml", text).objects {
            store.apply(Arc::new(object));
        }
        store
    }

    #[test]
    fn objects_are_written_as_they_are_read() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: a, namespace: b, labels: {x: z}, creationTimestamp: '2024-01-01T00:00:00Z'}\n\
                    spec: {hosts: [c], http: [{timeout: 5s, route: [{destination: {host: c}, weight: 100}]}]}\n\
                    ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: b}\n\
                    stringData: {key: hidden}\n";
        let page = configz(&store(text));
        let want = json!([{
            "kind": "VirtualService",
            "apiVersion": "networking.istio.io/v1",
            "metadata": {
                "name": "a", "namespace": "b", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"x": "z"},
            },
            "spec": {
                "hosts": ["c"],
                "http": [{"timeout": "5s", "route": [{"destination": {"host": "c"}, "weight": 100}]}],
            },
        }]);
        assert_eq!(page, want);
        let places = places(&store(text)).to_string();
        assert!(places.contains("a.yaml:1") && !places.contains("\"s\""), "{places}");
    }

    #[test]
    fn every_kind_of_istio_can_be_shown() {
        for kind in Kind::ALL.iter().filter(|kind| kind.is_istio()) {
            let version = kind.versions()[0];
            let spec = if *kind == Kind::ServiceEntry { "{hosts: [a.b], ports: []}" } else { "{}" };
            let text = format!(
                "apiVersion: {}/{version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n",
                kind.group()
            );
            for object in yaml::read("a.yaml", &text).objects {
                let page = of_object(&object);
                assert!(page["spec"].is_object() && page["spec"].get("error").is_none(), "{page}");
            }
        }
    }
}
