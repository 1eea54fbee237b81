//! The objects of a cluster, and of the other clusters of its mesh.

use std::collections::HashMap;

use analysis::{Body, Kind, Resource};
use anyhow::{Context as _, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig, NamedAuthInfo};
use kube::{Client, Config};
use mesh::{MeshConfig, MeshNetworks};
use serde::Deserialize;
use serde_json::Value;

use super::Gathered;
use crate::args::Global;
use crate::args::analyze::Analyze;
use crate::failure::Result;
use crate::proxies::cluster;

/// Objects in one answer.
const PAGE: u32 = 500;
/// Secrets that are large, common and nobody's credentials.
const SECRETS: &str =
    "&fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2Ctype%21%3Dkubernetes.io%2Fservice-account-token";
/// Name of the cluster that is looked at, where there are several.
const OWN: &str = "default";

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

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
    let client = client(cluster::config(global).await?)?;
    if let Some(name) = global.namespace.as_deref().filter(|name| !name.is_empty() && !args.all_namespaces)
        && get(&client, &format!("/api/v1/namespaces/{name}")).await?.is_none()
    {
        eprintln!("namespace {name:?} not found");
        return Ok(None);
    }
    let mut gathered = Gathered::default();
    for kind in Kind::ALL.iter().copied().filter(|kind| !kind.plural().is_empty()) {
        // Many are there, and only those of the control plane count.
        let within = (kind == Kind::ConfigMap).then_some(global.istio_namespace.as_str());
        let found = list(&client, kind, within).await?;
        gathered.resources.extend(found.into_iter().filter(|one| is_meant(one, &args.revision)));
    }
    settings(&client, global, &mut gathered).await?;
    let remote = remote(args, global, &gathered).await?;
    if !remote.is_empty() {
        gathered.resources.iter_mut().for_each(|one| one.cluster = OWN.into());
    }
    for (name, client) in remote {
        let services = list(&client, Kind::Service, None).await.with_context(|| format!("cluster {name}"))?;
        gathered.resources.extend(services.into_iter().map(|mut one| {
            one.cluster = name.as_str().into();
            one
        }));
    }
    Ok(Some(gathered))
}

fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).context("client of the API server")
}

async fn get(client: &Client, path: &str) -> anyhow::Result<Option<String>> {
    let request = http::Request::get(path).body(Vec::new())?;
    match client.request_text(request).await {
        Ok(text) => Ok(Some(text)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error).with_context(|| format!("GET {path}")),
    }
}

/// All objects of a kind; none where the cluster does not have it.
async fn list(client: &Client, kind: Kind, namespace: Option<&str>) -> anyhow::Result<Vec<Resource>> {
    let mut found = Vec::new();
    for version in kind.versions() {
        let root = if kind.group().is_empty() { "api".to_owned() } else { format!("apis/{}", kind.group()) };
        let within = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
        let more = if kind == Kind::Secret { SECRETS } else { "" };
        let path = format!("/{root}/{version}/{within}{}?limit={PAGE}{more}", kind.plural());
        let mut next = String::new();
        loop {
            let page =
                if next.is_empty() { path.clone() } else { format!("{path}&continue={}", encoded(&next)) };
            let Some(text) = get(client, &page).await? else { break };
            let list: List = serde_json::from_str(&text).with_context(|| format!("GET {page}"))?;
            for item in list.items {
                let name =
                    item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
                match Resource::read(kind, item, "") {
                    Ok(one) => found.push(one),
                    Err(why) => eprintln!("Warning: {kind} {name} cannot be read: {why}"),
                }
            }
            next = list.metadata.next;
            if next.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// A text as part of the query of a URL.
fn encoded(text: &str) -> String {
    let part = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(part).collect()
}

fn is_meant(one: &Resource, revision: &str) -> bool {
    // Only configuration is for one revision of the control plane.
    let label = one.labels.get("istio.io/rev").filter(|_| one.kind.istio().is_some());
    let is_of_istio = one.kind != Kind::ConfigMap || one.name.starts_with("istio");
    let is_lock = one.annotations.has("control-plane.alpha.kubernetes.io/leader");
    is_of_istio && !is_lock && label.is_none_or(|label| label == revision)
}

/// Settings of the mesh, from its ConfigMap.
async fn settings(client: &Client, global: &Global, gathered: &mut Gathered) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/configmaps/istio", global.istio_namespace);
    let Some(text) = get(client, &path).await? else { return Ok(()) };
    let map: Value = serde_json::from_str(&text).with_context(|| format!("GET {path}"))?;
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
) -> anyhow::Result<HashMap<String, Client>> {
    let mut clients = HashMap::new();
    for context in &args.remote_contexts {
        let global = Global { context: Some(context.clone()), ..global.clone() };
        clients.insert(context.clone(), client(cluster::config(&global).await?)?);
    }
    if !clients.is_empty() {
        return Ok(clients);
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
            clients.insert(name.clone(), client(config.with_context(place)?)?);
        }
    }
    Ok(clients)
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
    use super::encoded;

    #[test]
    fn tokens_of_pages_are_encoded() {
        assert_eq!(encoded("aZ0-_.~"), "aZ0-_.~");
        assert_eq!(encoded("a=/+"), "a%3D%2F%2B");
    }
}
