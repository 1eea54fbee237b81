//! A cluster, as its kubeconfig names it, and objects of it for commands that read and
//! write them. A mesh without Kubernetes has none.

mod limit;
mod objects;

use std::fmt::Debug;
use std::io::{self, BufRead as _, Write};

use anyhow::{Context as _, bail};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Global;
use crate::proxies::admin::CONNECT;

/// Named in errors: what helps who has no cluster.
pub(crate) const HINT: &str =
    "name a cluster with --kubeconfig or --context, or a mesh without Kubernetes with --mesh FILE";
/// Who has written a field, for others that write the same object.
const MANAGER: &str = "istioctl";
/// Longest name of a label of DNS.
const LONGEST_LABEL: usize = 63;

/// A cluster and what is asked of it.
#[derive(Clone)]
pub struct Kubernetes {
    /// Asks.
    pub client: Client,
    /// Where its API server is.
    pub server: String,
    /// Namespace of who names none.
    pub namespace: String,
    /// Namespace of the kubeconfig or of `-n`, if either names one.
    pub named: Option<String>,
}

impl Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Reads the kubeconfig; nothing is asked yet.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn open(global: &Global) -> anyhow::Result<Self> {
        if global.mesh.is_some() {
            bail!(
                "this is about objects of Kubernetes, which a mesh of --mesh does not have; leave --mesh and ISTIOCTL_MESH out"
            );
        }
        let mut config = config(global).await?;
        if let Some(namespace) = &global.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let mut cluster = Self::of(config)?;
        cluster.named = global.namespace.clone().or(cluster.named);
        Ok(cluster)
    }

    /// The cluster of a kubeconfig; nothing is asked yet.
    ///
    /// # Errors
    /// When its credentials cannot be used.
    pub fn of(config: Config) -> anyhow::Result<Self> {
        let namespace = config.default_namespace.clone();
        Ok(Self {
            server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            client: limit::client(config).context("client of the API server")?,
            named: Some(namespace.clone()).filter(|namespace| namespace != "default"),
            namespace,
        })
    }

    /// All objects of a kind that is in no namespace, by name; of labels, if there are some.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn list<K>(&self, labels: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug,
    {
        self.listed(Api::all(self.client.clone()), labels).await
    }

    /// The same of a kind that is in namespaces; of all of them, or of one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn list_in<K>(&self, namespace: Option<&str>, labels: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        self.listed(api, labels).await
    }

    async fn listed<K>(&self, api: Api<K>, labels: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let list = api.list(&ListParams::default().labels(labels)).await;
        let mut items = list.with_context(|| format!("{}; {HINT}", K::plural(&())))?.items;
        items.sort_by(|one, other| {
            let key = |one: &K| (one.meta().namespace.clone(), one.meta().name.clone());
            key(one).cmp(&key(other))
        });
        Ok(items)
    }

    /// An object that is in a namespace, if it is there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn get<K>(&self, namespace: &str, name: &str) -> anyhow::Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let found = Api::<K>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        found.with_context(|| format!("{} {namespace}/{name}; {HINT}", K::kind(&())))
    }

    /// An object that is in no namespace, if it is there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn find<K>(&self, name: &str) -> anyhow::Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let found = Api::<K>::all(self.client.clone()).get_opt(name).await;
        found.with_context(|| format!("{} {name}; {HINT}", K::kind(&())))
    }

    /// Writes an object: makes it, or sets the fields that it has.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("/apiVersion").rsplit_once('/').unwrap_or(("", text("/apiVersion")));
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = match text("/metadata/namespace") {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &params, &Patch::Apply(object)).await;
        applied.with_context(|| format!("apply {kind} {name}"))?;
        Ok(())
    }
}

/// How a cluster is reached, by the kubeconfig and the flags of all commands.
async fn config(global: &Global) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (&global.kubeconfig, &global.context) {
        (Some(path), _) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        (None, Some(context)) => {
            Config::from_kubeconfig(&options).await.with_context(|| format!("--context {context}"))?
        }
        (None, None) => Config::infer().await.context("there is no cluster").context(HINT)?,
    };
    if let Some(user) = &global.as_user {
        config.auth_info.impersonate = Some(user.clone());
    }
    if !global.as_group.is_empty() {
        config.auth_info.impersonate_groups = Some(global.as_group.clone());
    }
    if let Some(uid) = &global.as_uid {
        config.auth_info.impersonate_uid = Some(uid.clone());
    }
    config.connect_timeout = Some(CONNECT.min(global.kubeclient_timeout));
    config.read_timeout = Some(global.kubeclient_timeout);
    Ok(config)
}

/// Asks a question on a terminal; anything but yes, and no answer, is no.
///
/// # Errors
/// When the question cannot be printed.
pub fn confirm(question: &str, out: &mut impl Write) -> io::Result<bool> {
    write!(out, "{question} ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Whether a text may be part of the name of a host, as many names of Kubernetes must be.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_LABEL
        && bytes.first().copied().is_some_and(is_letter)
        && bytes.last().copied().is_some_and(is_letter)
        && bytes.iter().all(|byte| is_letter(*byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_dns() {
        for right in ["a", "a-1", &"a".repeat(63)] {
            assert!(is_label(right), "{right}");
        }
        for wrong in ["", "-a", "a-", "A", "a.b", "a b", &"a".repeat(64)] {
            assert!(!is_label(wrong), "{wrong}");
        }
    }
}
