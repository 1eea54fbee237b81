//! The objects of a cluster, and of the other clusters of its mesh.

use std::collections::HashMap;

use analysis::{Body, Kind, Resource};
use anyhow::{Context as _, anyhow};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, NamedAuthInfo};
use mesh::{MeshConfig, MeshNetworks};
use serde_json::Value;

use super::Gathered;
use crate::args::Global;
use crate::args::analyze::Analyze;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::proxies::objects::meta;
use crate::render::plain::warn;

/// All Secrets but those that are large, common and nobody's credentials.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";
/// Name of the cluster that is looked at, where there are several.
const OWN: &str = "default";

/// Reads all that is looked at; `None` when there is nothing to look at, which
/// has been told then.
pub(in crate::command) async fn gather(args: &Analyze, global: &Global) -> Result<Option<Gathered>> {
    let gathered = tokio::time::timeout(args.timeout, all(args, global)).await;
    gathered.map_err(|_| anyhow!("the cluster did not answer within --timeout {:?}", args.timeout))?
}

async fn all(args: &Analyze, global: &Global) -> Result<Option<Gathered>> {
    if global.mesh.is_some() {
        return Err(anyhow!(
            "a mesh of --mesh has no objects to be asked for: name its files, with --use-kube=false"
        )
        .into());
    }
    let cluster = Kubernetes::open(global).await?;
    if let Some(name) = global.namespace.as_deref().filter(|name| !name.is_empty() && !args.all_namespaces)
        && is_absent(cluster.text(&format!("/api/v1/namespaces/{name}")).await)?
    {
        eprintln!("namespace {name:?} not found");
        return Ok(None);
    }
    let mut gathered = Gathered::default();
    for kind in Kind::ALL.iter().copied().filter(|kind| !kind.plural().is_empty()) {
        // Many are there, and only those of the control plane count.
        let within = (kind == Kind::ConfigMap).then_some(global.istio_namespace.as_str());
        let found = match list(&cluster, kind, within).await {
            // What may be read is still looked at.
            Err(error) if is_forbidden(&error) => {
                warn(format!(
                    "{kind} may not be read: what is said of it may be wrong or missing: {error:#}"
                ));
                continue;
            }
            found => found?,
        };
        gathered.resources.extend(found.into_iter().filter(|one| is_meant(one, &args.revision)));
    }
    settings(&cluster, global, &mut gathered).await?;
    let remote = remote(args, global, &gathered).await?;
    if !remote.is_empty() {
        gathered.resources.iter_mut().for_each(|one| one.cluster = OWN.into());
    }
    for (name, cluster) in remote {
        let services =
            list(&cluster, Kind::Service, None).await.with_context(|| format!("cluster {name}"))?;
        gathered.resources.extend(services.into_iter().map(|mut one| {
            one.cluster = name.as_str().into();
            one
        }));
    }
    Ok(Some(gathered))
}

/// Whether the API server refuses who asks.
fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}

/// Whether there is no such object; one that may not be read may be there.
fn is_absent(found: anyhow::Result<Option<String>>) -> anyhow::Result<bool> {
    match found {
        Err(error) if is_forbidden(&error) => Ok(false),
        found => Ok(found?.is_none()),
    }
}

/// All objects of a kind; none where the cluster does not have it.
async fn list(cluster: &Kubernetes, kind: Kind, namespace: Option<&str>) -> anyhow::Result<Vec<Resource>> {
    let mut found = Vec::new();
    let fields = if kind == Kind::Secret { SECRETS } else { "" };
    let each = |item: Value| {
        let name = meta(&item, "name").to_owned();
        match Resource::read(kind, item, "") {
            Ok(one) => found.push(one),
            Err(why) => warn(format!("{kind} {name} cannot be read: {why}")),
        }
    };
    cluster.objects(kind, namespace, fields, each).await?;
    Ok(found)
}

fn is_meant(one: &Resource, revision: &str) -> bool {
    // Only configuration is for one revision of the control plane.
    let label = one.labels.get("istio.io/rev").filter(|_| one.kind.istio().is_some());
    let is_of_istio = one.kind != Kind::ConfigMap || one.name.starts_with("istio");
    let is_lock = one.annotations.has("control-plane.alpha.kubernetes.io/leader");
    is_of_istio && !is_lock && label.is_none_or(|label| label == revision)
}

/// Settings of the mesh, from its ConfigMap.
async fn settings(cluster: &Kubernetes, global: &Global, gathered: &mut Gathered) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/configmaps/istio", global.istio_namespace);
    let Some(map) = cluster.json(&path).await? else { return Ok(()) };
    let part = |name: &str| map.pointer(&format!("/data/{name}")).and_then(Value::as_str);
    let place = || format!("ConfigMap {}/istio", global.istio_namespace);
    let mesh = part("mesh").map(MeshConfig::from_yaml).transpose();
    gathered.mesh = mesh.with_context(|| format!("{}: mesh", place()))?;
    let networks = part("meshNetworks").map(MeshNetworks::from_yaml).transpose();
    gathered.networks = networks.with_context(|| format!("{}: meshNetworks", place()))?;
    Ok(())
}

/// The other clusters of the mesh by name: of contexts that are named, else
/// those whose Secrets the control plane has.
async fn remote(
    args: &Analyze,
    global: &Global,
    gathered: &Gathered,
) -> anyhow::Result<HashMap<String, Kubernetes>> {
    let mut clusters = HashMap::new();
    for context in &args.remote_contexts {
        let global = Global { context: Some(context.clone()), ..global.clone() };
        clusters.insert(context.clone(), Kubernetes::open(&global).await?);
    }
    if !clusters.is_empty() {
        return Ok(clusters);
    }
    let secrets = gathered.resources.iter().filter(|one| {
        *one.namespace == *global.istio_namespace && one.labels.get("istio/multiCluster") == Some("true")
    });
    for one in secrets {
        let Body::Secret(secret) = &one.body else { continue };
        for name in secret.data.keys() {
            let place = || format!("Secret {}: {name}", one.full_name());
            let Some(text) = secret.value(name) else { continue };
            let file = Kubeconfig::from_yaml(&String::from_utf8_lossy(&text)).with_context(place)?;
            if file.auth_infos.iter().any(is_of_this_machine) {
                return Err(anyhow!("it names programs or files of this machine, which a Secret may not; use --remote-contexts"))
                    .with_context(place);
            }
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            clusters.insert(name.clone(), Kubernetes::of(config.with_context(place)?)?);
        }
    }
    Ok(clusters)
}

/// Whether credentials would run a program here, or send a file of the user.
fn is_of_this_machine(user: &NamedAuthInfo) -> bool {
    user.auth_info.as_ref().is_some_and(|auth| {
        auth.exec.is_some()
            || auth.auth_provider.is_some()
            || auth.token_file.is_some()
            || auth.client_certificate.is_some()
            || auth.client_key.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_read_is_not_the_end() {
        let refused = |code: u16| {
            let status =
                serde_json::json!({"status": "Failure", "message": "no", "reason": "x", "code": code});
            let error = kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
            Err::<Option<String>, _>(error).context("GET /api/v1/namespaces/a")
        };
        assert!(is_forbidden(&refused(403).unwrap_err()) && !is_forbidden(&refused(500).unwrap_err()));
        assert!(!is_absent(refused(403)).unwrap() && is_absent(refused(500)).is_err());
        assert!(is_absent(Ok(None)).unwrap() && !is_absent(Ok(Some(String::new()))).unwrap());
    }
}
