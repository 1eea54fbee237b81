//! The service account whose credentials the Secret has.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;

/// Type of Secrets with a token.
const TOKEN: &str = "kubernetes.io/service-account-token";
/// Annotation that says whose token it is.
const OWNER: &str = "kubernetes.io/service-account.name";
/// How often, and how far apart, a Secret is looked at until its token is there.
const PATIENCE: (u32, Duration) = (5, Duration::from_secs(1));
/// Read all of these.
const READ: [&str; 3] = ["get", "list", "watch"];

/// A service account.
#[derive(Debug)]
pub(super) struct Account<'a> {
    pub(super) cluster: &'a Kubernetes,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Its credentials.
pub(super) struct Token {
    /// PEM of the roots of the API server.
    pub(super) roots: Vec<u8>,
    pub(super) token: String,
}

impl Account<'_> {
    /// A token that does not end, which a control plane elsewhere needs; `secret` names
    /// one that is there.
    pub(super) async fn token(
        &self,
        is_made: bool,
        secret: &str,
        needs_token: bool,
    ) -> anyhow::Result<Token> {
        let Self { cluster, namespace, name } = self;
        if cluster.get::<ServiceAccount>(namespace, name).await?.is_none() {
            if !is_made {
                bail!(
                    "there is no service account {name} in the namespace {namespace:?}: install Istio in this cluster first, or run with --create-service-account=true"
                );
            }
            self.make().await?;
        }
        let mut found = self.secret(secret).await?;
        for _ in 0..PATIENCE.0 {
            let data = found.data.as_ref();
            let part = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
            match (part("ca.crt"), part("token")) {
                (Some(roots), Some(token)) => {
                    return Ok(Token {
                        roots,
                        token: String::from_utf8(token).context("the token is no text")?,
                    });
                }
                (Some(roots), None) if !needs_token => return Ok(Token { roots, token: String::new() }),
                _ => tokio::time::sleep(PATIENCE.1).await,
            }
            let own = found.metadata.name.clone().unwrap_or_default();
            found =
                cluster.get::<Secret>(namespace, &own).await?.context("the Secret of the token is gone")?;
        }
        let own = found.metadata.name.unwrap_or_default();
        bail!(
            "no \"ca.crt\" and \"token\" data found in Secret {namespace}/{own}: the cluster's token controller has not filled it"
        )
    }

    /// The Secret of a name, else one that is there, else a new one.
    async fn secret(&self, wanted: &str) -> anyhow::Result<Secret> {
        let Self { cluster, namespace, name } = self;
        if !wanted.is_empty() {
            let found = cluster.get::<Secret>(namespace, wanted).await?;
            let found = found.with_context(|| format!("there is no Secret {namespace}/{wanted}"))?;
            if !self.owns(&found) {
                bail!("secret {namespace}/{wanted} does not reference ServiceAccount {name}");
            }
            return Ok(found);
        }
        let all = cluster.list_in::<Secret>(Some(namespace), "").await?;
        if let Some(found) = all.into_iter().find(|secret| self.owns(secret)) {
            return Ok(found);
        }
        let own = format!("{name}-istio-remote-secret-token");
        cluster
            .apply(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "type": TOKEN,
                "metadata": {"name": own, "namespace": namespace, "annotations": {OWNER: name}},
            }))
            .await?;
        cluster.get::<Secret>(namespace, &own).await?.context("the Secret of the token is gone")
    }

    fn owns(&self, secret: &Secret) -> bool {
        let annotations = secret.metadata.annotations.as_ref();
        let owner = annotations.and_then(|annotations| annotations.get(OWNER));
        secret.type_.as_deref() == Some(TOKEN) && owner.is_some_and(|owner| owner == self.name)
    }

    /// Makes the account, with the right to read what a control plane reads.
    async fn make(&self) -> anyhow::Result<()> {
        let Self { cluster, namespace, .. } = self;
        if cluster.find::<Namespace>(namespace).await?.is_none() {
            cluster
                .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
                .await?;
        }
        for object in objects(namespace, self.name) {
            cluster.apply(&object).await?;
        }
        Ok(())
    }
}

/// The account, and what it may.
fn objects(namespace: &str, name: &str) -> [Value; 3] {
    let usual = format!("istio-reader-clusterrole-{namespace}");
    // What the installation has made for its own account stays as it is.
    let role = if name == super::READER { usual } else { format!("{usual}-{name}") };
    let labels = json!({
        "app": "istio-reader",
        "app.kubernetes.io/name": "istio-reader",
        "app.kubernetes.io/part-of": "istio",
        "app.kubernetes.io/managed-by": "istioctl",
    });
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let istio = ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"];
    let core = [
        "endpoints",
        "pods",
        "services",
        "nodes",
        "replicationcontrollers",
        "namespaces",
        "secrets",
        "configmaps",
    ];
    let rules = [
        rule(&istio, &["*"], &READ),
        rule(&[""], &core, &READ),
        rule(&["gateway.networking.k8s.io"], &["gateways"], &READ),
        rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], &READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], &READ),
        rule(&["multicluster.x-k8s.io"], &["serviceexports"], &["get", "list", "watch", "create", "delete"]),
        rule(&["multicluster.x-k8s.io"], &["serviceimports"], &READ),
        rule(&["apps"], &["replicasets"], &READ),
        // Who asks for a certificate from there, and what they may read.
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ];
    [
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role, "labels": labels},
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role, "labels": labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_may_read_and_change_nothing() {
        let [account, role, binding] = objects("mesh", "reader");
        assert_eq!(account["metadata"]["name"], binding["subjects"][0]["name"]);
        assert_eq!(role["metadata"]["name"], binding["roleRef"]["name"]);
        for own in [&role, &binding] {
            assert_eq!(own["metadata"]["name"], "istio-reader-clusterrole-mesh-reader");
        }
        for usual in &objects("mesh", "istio-reader-service-account")[1..] {
            assert_eq!(usual["metadata"]["name"], "istio-reader-clusterrole-mesh");
        }
        for rule in role["rules"].as_array().unwrap() {
            let writes =
                rule["verbs"].as_array().unwrap().iter().any(|verb| !READ.contains(&verb.as_str().unwrap()));
            let asks = ["tokenreviews", "subjectaccessreviews", "serviceexports"];
            assert!(!writes || asks.contains(&rule["resources"][0].as_str().unwrap()), "{rule}");
        }
    }
}
