//! Objects of Kubernetes and Istio as JSON: those of the API server, or those in the
//! files that a mesh without Kubernetes is configured by.

use std::fs;
use std::path::Path;

use analysis::Kind;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::file::DEFAULT;
use super::{Mesh, Place, Proxy, Target};

impl Mesh {
    /// Namespace of who names none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match &self.place {
            Place::Cluster(cluster) => &cluster.kubernetes.namespace,
            Place::File(file) => file.namespace.as_deref().unwrap_or(DEFAULT),
        }
    }

    /// What `NAME[.NAMESPACE]` names, whether there is such an object or not.
    #[must_use]
    pub fn named(&self, text: &str) -> Proxy {
        let Target { name, namespace, .. } = Target::parse(text);
        Proxy { name, namespace: namespace.unwrap_or_else(|| self.namespace().to_owned()) }
    }

    /// An object of a kind; `None` if it is not there.
    ///
    /// # Errors
    /// When the API server or a file cannot be read.
    pub async fn object(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        match &self.place {
            Place::Cluster(cluster) => cluster.kubernetes.object(kind, namespace, name).await,
            Place::File(_) => {
                let all = self.objects(kind, Some(namespace)).await?;
                Ok(all.into_iter().find(|one| meta(one, "name") == name))
            }
        }
    }

    /// All objects of a kind, of one namespace or all; none where the cluster does not
    /// know the kind.
    ///
    /// # Errors
    /// When the API server or a file cannot be read.
    pub async fn objects(&self, kind: Kind, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        match &self.place {
            Place::Cluster(cluster) => {
                cluster.kubernetes.objects(kind, namespace, "", |one| found.push(one)).await?;
            }
            Place::File(file) => {
                if let Some(dir) = &file.objects {
                    found = read(dir, kind)?;
                }
                if kind == Kind::Pod {
                    with_pods(&mut found, file);
                }
                found.retain(|one| namespace.is_none_or(|namespace| meta(one, "namespace") == namespace));
            }
        }
        found.sort_by(|one, other| key(one).cmp(&key(other)));
        Ok(found)
    }
}

fn key(object: &Value) -> (&str, &str) {
    (meta(object, "namespace"), meta(object, "name"))
}

/// A text of an object's metadata.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// All objects of a kind in the files of a directory.
fn read(dir: &Path, kind: Kind) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let is_meant = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        let Ok((text, _)) = source::file::read(&path) else { continue };
        if !is_meant {
            continue;
        }
        match serde_saphyr::from_multiple::<Value>(&text) {
            Ok(documents) => documents.into_iter().for_each(|one| take(one, kind, &mut found)),
            Err(error) => eprintln!("Warning: {} cannot be read: {error}", path.display()),
        }
    }
    Ok(found)
}

fn take(mut object: Value, kind: Kind, found: &mut Vec<Value>) {
    if let Some(Value::Array(items)) = object.get_mut("items").map(Value::take) {
        items.into_iter().for_each(|one| take(one, kind, found));
        return;
    }
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    if Kind::find(text("apiVersion"), text("kind")) != Some(kind) {
        return;
    }
    if kind.is_namespaced() && meta(&object, "namespace").is_empty() && object["metadata"].is_object() {
        object["metadata"]["namespace"] = DEFAULT.into();
    }
    found.push(object);
}

/// Adds the pods that the file of the mesh names: they run, and have a sidecar,
/// whatever files of objects say of that.
fn with_pods(found: &mut Vec<Value>, file: &super::File) {
    const SIDECAR: &str = "istio-proxy";
    for pod in &file.pods {
        let proxy = pod.proxy(DEFAULT);
        let at = found.iter().position(|one| key(one) == (&proxy.namespace, &proxy.name)).unwrap_or_else(|| {
            found.push(json!({"metadata": {"name": proxy.name, "namespace": proxy.namespace, "labels": pod.labels}}));
            found.len() - 1
        });
        let (spec, status) = (&found[at]["spec"], &found[at]["status"]);
        let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
        let has_one = |items: &[Value]| items.iter().any(|one| one["name"] == SIDECAR);
        let (mut containers, mut states) = (list(spec, "containers"), list(status, "containerStatuses"));
        if !has_one(&containers) && !has_one(&list(spec, "initContainers")) {
            containers.push(json!({"name": SIDECAR}));
        }
        if !has_one(&states) && !has_one(&list(status, "initContainerStatuses")) {
            states.push(json!({"name": SIDECAR, "ready": true}));
        }
        // A file may say anything in place of a pod.
        let Some(fields) = found[at].as_object_mut() else { continue };
        for (name, own) in [
            ("spec", json!({"containers": containers})),
            ("status", json!({"phase": "Running", "containerStatuses": states})),
        ] {
            match (fields.get_mut(name).and_then(Value::as_object_mut), own) {
                (Some(known), Value::Object(own)) => known.extend(own),
                (_, own) => drop(fields.insert(name.to_owned(), own)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_files_are_found_by_kind_also_in_lists() {
        let dir = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n\
            - {apiVersion: v1, kind: Pod, metadata: {name: c}}\n";
        fs::write(dir.path().join("a.yaml"), text).unwrap();
        fs::write(dir.path().join("b.txt"), text).unwrap();
        fs::write(dir.path().join("c.yaml"), "a: [").unwrap();
        let found = read(dir.path(), Kind::Service).unwrap();
        assert_eq!(found.iter().map(key).collect::<Vec<_>>(), [("shop", "a"), ("default", "b")]);
    }

    #[test]
    fn pods_that_the_mesh_names_run_and_have_a_sidecar() {
        let pod = |name: &str| super::super::file::Pod { name: name.into(), ..Default::default() };
        let mut file = super::super::File::default();
        file.pods = vec![pod("a"), pod("b")];
        let mut found = vec![json!({
            "metadata": {"name": "a", "namespace": "default"}, "spec": {"nodeName": "n", "containers": [{"name": "app"}]}, "status": {"podIP": "10.0.0.1"},
        })];
        with_pods(&mut found, &file);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (&found[0]["spec"]["nodeName"], &found[0]["status"]["podIP"]),
            (&json!("n"), &json!("10.0.0.1"))
        );
        assert_eq!(found[0]["spec"]["containers"], json!([{"name": "app"}, {"name": "istio-proxy"}]));
        for one in &found {
            assert_eq!(one["status"]["phase"], "Running");
            assert_eq!(one["status"]["containerStatuses"], json!([{"name": "istio-proxy", "ready": true}]));
        }
    }
}
