//! Objects of a cluster: made, changed and read by tests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::discovery::{self, Scope};
use serde_json::{Value, json};

use super::Cluster;
use crate::netns;

/// Who the tests are to the API server.
const MANAGER: &str = "istio-tests";
/// How long definitions may take.
const DEFINED: Duration = Duration::from_secs(30);

impl Cluster {
    /// Makes a namespace with these labels, and the service account that pods
    /// of it have.
    ///
    /// # Errors
    /// When the API server does not want it.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        self.apply(&[json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}
        })])?;
        self.account(name, "default")
    }

    /// Makes a service account.
    ///
    /// # Errors
    /// When the API server does not want it.
    pub fn account(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.apply(&[json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}
        })])
    }

    /// A token of a service account for those who may accept it; without any,
    /// for the API server itself.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn token(&self, namespace: &str, account: &str, audiences: &[&str]) -> anyhow::Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        let spec =
            TokenRequestSpec { audiences, expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = self.run(api.create_token_request(account, &PostParams::default(), &request))?;
        Ok(answer.status.context("a token request without status")?.token)
    }

    /// A token of a pod's service account that ends with the pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn token_of_pod(&self, namespace: &str, name: &str, audiences: &[&str]) -> anyhow::Result<String> {
        let pod = self.get("v1", "Pod", namespace, name)?.context("no such pod")?;
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
            expiration_seconds: Some(3600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(name.to_owned()),
                uid: Some(text("/metadata/uid")),
            }),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let account = text("/spec/serviceAccountName");
        let answer = self.run(api.create_token_request(&account, &PostParams::default(), &request))?;
        Ok(answer.status.context("a token request without status")?.token)
    }

    /// Sets objects, each with all its fields (server-side apply); a `status`
    /// is set, too.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        self.apply_as(&PatchParams::apply(MANAGER).force(), objects)
    }

    /// The same, where a field that its kind does not have is refused.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply_strictly(&self, objects: &[Value]) -> anyhow::Result<()> {
        self.apply_as(&PatchParams::apply(MANAGER).force().validation_strict(), objects)
    }

    fn apply_as(&self, params: &PatchParams, objects: &[Value]) -> anyhow::Result<()> {
        self.run(async {
            let mut known = BTreeMap::new();
            for object in objects {
                self.set(params, object, &mut known).await.with_context(|| title(object))?;
            }
            Ok(())
        })
    }

    /// The same for the documents of a YAML text.
    ///
    /// # Errors
    /// When it is no YAML, or the API server refuses an object.
    pub fn apply_yaml(&self, text: &str) -> anyhow::Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        let objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
        self.apply(&objects)
    }

    async fn set(
        &self,
        params: &PatchParams,
        object: &Value,
        known: &mut BTreeMap<(String, String), (ApiResource, Scope)>,
    ) -> anyhow::Result<()> {
        let (api, name) = self.api_of(object, known).await?;
        let mut content = object.clone();
        let status = content.as_object_mut().and_then(|fields| fields.remove("status"));
        api.patch(&name, params, &Patch::Apply(&content)).await?;
        if let Some(status) = status {
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status})))
                .await?;
        }
        Ok(())
    }

    async fn api_of(
        &self,
        object: &Value,
        known: &mut BTreeMap<(String, String), (ApiResource, Scope)>,
    ) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (name, namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
        ensure!(!name.is_empty(), "no name");
        let id = (version.clone(), kind.clone());
        if !known.contains_key(&id) {
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            let kind = GroupVersionKind::gvk(group, version, &kind);
            let (resource, capabilities) = discovery::pinned_kind(&self.client, &kind).await?;
            known.insert(id.clone(), (resource, capabilities.scope));
        }
        let (resource, scope) = &known[&id];
        let client = self.client.clone();
        let api = match scope {
            Scope::Cluster => Api::all_with(client, resource),
            Scope::Namespaced if namespace.is_empty() => Api::namespaced_with(client, "default", resource),
            Scope::Namespaced => Api::namespaced_with(client, &namespace, resource),
        };
        Ok((api, name))
    }

    /// Waits until the API server serves every kind that is defined.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_defined(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let all = self.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")?;
            let is_served = |definition: &Value| {
                let conditions = definition["status"]["conditions"].as_array();
                conditions.is_some_and(|all| {
                    all.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
                })
            };
            let missing: Vec<String> = all.iter().filter(|one| !is_served(one)).map(title).collect();
            if missing.is_empty() {
                return Ok(());
            }
            ensure!(begin.elapsed() < DEFINED, "not served: {missing:?}");
            netns::pause();
        }
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the API server does not delete it.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let now = DeleteParams::default().grace_period(0);
        self.delete_with(&now, api_version, kind, namespace, name)
    }

    /// Deletes a pod as a rollout does: its containers have the time that it says.
    ///
    /// # Errors
    /// When the API server does not delete it.
    pub fn evict(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        self.delete_with(&DeleteParams::default(), "v1", "Pod", namespace, pod)
    }

    fn delete_with(
        &self,
        params: &DeleteParams,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}
        });
        self.run(async {
            let (api, name) = self.api_of(&object, &mut BTreeMap::new()).await?;
            match api.delete(&name, params).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                Err(error) => Err(error).with_context(|| title(&object)),
            }
        })
    }

    /// An object as the API server has it; `None` when it is not there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<Option<Value>> {
        let object = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}
        });
        self.run(async {
            let (api, name) = self.api_of(&object, &mut BTreeMap::new()).await?;
            Ok(api.get_opt(&name).await?.map(serde_json::to_value).transpose()?)
        })
    }

    /// All objects of a kind, each with its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn list(&self, api_version: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        self.run(async {
            let (resource, _) = discovery::pinned_kind(&self.client, &kind).await?;
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let list = api.list(&ListParams::default()).await?;
            let objects = list.items.into_iter().map(|object| {
                let mut object = serde_json::to_value(object)?;
                object["apiVersion"] = resource.api_version.clone().into();
                object["kind"] = resource.kind.clone().into();
                Ok(object)
            });
            objects.collect()
        })
    }
}

fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}
