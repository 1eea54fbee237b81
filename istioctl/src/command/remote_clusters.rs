//! `remote-clusters`: the clusters that each istiod reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;
use names::label::REVISION;
use serde::Deserialize;

use super::create_remote_secret::LABEL;
use crate::args::Global;
use crate::args::remote::RemoteClusters as Args;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::render::table::{Table, WIDE};
use crate::xds::{self, PAGE, Question, identifier};

/// A cluster, as istiod tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Known {
    id: String,
    secret_name: String,
    sync_status: String,
}

/// Prints a row for each istiod and cluster.
///
/// # Errors
/// When no istiod answers.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let names = ["clusterz".to_owned()];
    let answers = xds::ask(global, &args.xds, Question { type_url: PAGE, names: &names }).await?;
    let mut by_istiod: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    for answer in &answers {
        let id = identifier(answer).id;
        let text = answer.resources.first().map(|one| one.value.clone()).unwrap_or_default();
        let known = serde_json::from_slice(&text).with_context(|| format!("clusterz of {id}"))?;
        by_istiod.insert(id, known);
    }
    let mut revisions = BTreeMap::new();
    // Only with Kubernetes there is more to be told, by who may read it.
    if global.mesh.is_none()
        && let Ok(cluster) = Kubernetes::open(global).await
    {
        let namespace = Some(global.istio_namespace.as_str());
        let pods = cluster.list_in::<Pod>(namespace, "app=istiod").await.unwrap_or_default();
        revisions = pods
            .iter()
            .map(|pod| (pod.name_any(), pod.labels().get(REVISION).cloned().unwrap_or_default()))
            .collect();
        let secrets = cluster.list_in::<Secret>(namespace, &format!("{LABEL}=true")).await;
        let named = secrets.iter().flatten().flat_map(|secret| secret.data.iter().flatten());
        let named: BTreeSet<String> = named.map(|(name, _)| name.clone()).collect();
        for (istiod, cluster) in unread(&by_istiod, &named) {
            eprintln!(
                "Warning: there is a Secret for the cluster {cluster}, which {istiod} does not read; istiod of this \
                 project reads its own cluster only"
            );
        }
    }
    Ok(out.write_all(table(&by_istiod, &revisions).as_bytes())?)
}

/// Clusters that a Secret names and an istiod does not.
fn unread<'a>(
    by_istiod: &'a BTreeMap<String, Vec<Known>>,
    named: &'a BTreeSet<String>,
) -> Vec<(&'a str, &'a str)> {
    let mut unread = Vec::new();
    for (istiod, known) in by_istiod {
        let missing = named.iter().filter(|name| !known.iter().any(|one| one.id == **name));
        unread.extend(missing.map(|name| (istiod.as_str(), name.as_str())));
    }
    unread
}

fn table(by_istiod: &BTreeMap<String, Vec<Known>>, revisions: &BTreeMap<String, String>) -> String {
    let mut table = Table::new(WIDE);
    table.row(["NAME", "SECRET", "STATUS", "ISTIOD", "REVISION"]);
    for (istiod, known) in by_istiod {
        let revision = revisions.get(istiod).map(String::as_str).unwrap_or_default();
        for Known { id, secret_name, sync_status } in known {
            table.row([id, secret_name, sync_status, istiod, revision]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_istiod_has_a_row_for_each_cluster() {
        let known = r#"[{"id":"c1","secretName":"","syncStatus":"synced"},{"id":"c2","secretName":"istio-system/s","syncStatus":"timeout"}]"#;
        let by_istiod = BTreeMap::from([("istiod-0".to_owned(), serde_json::from_str(known).unwrap())]);
        let revisions = BTreeMap::from([("istiod-0".to_owned(), "canary".to_owned())]);
        assert_eq!(
            table(&by_istiod, &revisions),
            "NAME     SECRET             STATUS      ISTIOD       REVISION\n\
             c1                          synced      istiod-0     canary\n\
             c2       istio-system/s     timeout     istiod-0     canary\n"
        );
        let named = BTreeSet::from(["c2".to_owned(), "c3".to_owned()]);
        assert_eq!(unread(&by_istiod, &named), [("istiod-0", "c3")]);
    }
}
