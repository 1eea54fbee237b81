//! Whether a pod wants mutual TLS, and who says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use analysis::Kind;
use anyhow::Context as _;
use mesh::MeshConfig;
use serde_json::Value;

use super::pod::is_selected;
use crate::proxies::Mesh;
use crate::proxies::objects::meta;
use crate::render::plain::warn;

/// What holds where nobody says anything.
const DEFAULT: &str = "PERMISSIVE";

/// Describes it.
pub(super) async fn text(
    mesh: &Mesh,
    pod: &Value,
    revision: &str,
    istio_namespace: &str,
) -> anyhow::Result<String> {
    let map =
        if matches!(revision, "" | "default") { "istio".to_owned() } else { format!("istio-{revision}") };
    let settings = mesh.config_map(&map, "mesh").await.context("failed to fetch mesh config")?;
    let settings = settings.map(|text| MeshConfig::from_yaml(&text)).transpose();
    let settings = settings.with_context(|| format!("ConfigMap {istio_namespace}/{map}: mesh"))?;
    let root = settings.map(|settings| settings.root_namespace.clone()).filter(|root| !root.is_empty());
    let root = root.unwrap_or_else(|| istio_namespace.to_owned());
    let namespace = meta(pod, "namespace");
    let mut all = Vec::new();
    match mesh.objects(Kind::PeerAuthentication, Some(&root)).await {
        Ok(found) if root != namespace => all.extend(found),
        Ok(_) => {}
        // Who may look at a namespace only, sees what that one says.
        Err(error) => warn(format!("policies of the namespace {root} are not known: {error:#}")),
    }
    all.extend(mesh.objects(Kind::PeerAuthentication, Some(namespace)).await?);
    Ok(composed(&all, pod, &root))
}

fn mode(tls: &Value) -> Option<&str> {
    tls["mode"].as_str().filter(|mode| *mode != "UNSET")
}

fn composed(all: &[Value], pod: &Value, root: &str) -> String {
    let labels = |one: &Value| one["spec"]["selector"]["matchLabels"].clone();
    let is_general = |one: &Value| labels(one).as_object().is_none_or(serde_json::Map::is_empty);
    let applied: Vec<&Value> =
        all.iter().filter(|one| is_general(one) || is_selected(&labels(one), pod)).collect();
    // Of several the oldest counts.
    let oldest = |is_meant: &dyn Fn(&Value) -> bool| {
        let meant = applied.iter().copied().filter(|one| is_meant(one));
        meant.min_by_key(|one| meta(one, "creationTimestamp"))
    };
    let of_mesh = oldest(&|one| is_general(one) && meta(one, "namespace") == root);
    let of_namespace = oldest(&|one| is_general(one) && meta(one, "namespace") != root);
    let own = oldest(&|one| !is_general(one) && meta(one, "namespace") != root);
    let known = [own, of_namespace, of_mesh].into_iter().flatten();
    let wanted = known.filter_map(|one| mode(&one["spec"]["mtls"])).next().unwrap_or(DEFAULT);
    // Writing into text cannot fail.
    let mut told = format!("Effective PeerAuthentication:\n   Workload mTLS mode: {wanted}\n");
    let ports = own.and_then(|one| one["spec"]["portLevelMtls"].as_object()).into_iter().flatten();
    let ports: BTreeMap<u32, &str> =
        ports.filter_map(|(port, tls)| Some((port.parse().ok()?, mode(tls).unwrap_or(wanted)))).collect();
    if !ports.is_empty() {
        told += "   Port Level mTLS mode:\n";
    }
    for (port, mode) in ports {
        let _ = writeln!(told, "      {port}: {mode}");
    }
    if !applied.is_empty() {
        let names: Vec<String> =
            applied.iter().map(|one| format!("{}.{}", meta(one, "name"), meta(one, "namespace"))).collect();
        let _ = writeln!(told, "Applied PeerAuthentication:\n   {}", names.join(", "));
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(namespace: &str, name: &str, spec: &Value, created: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "creationTimestamp": created}, "spec": spec})
    }

    #[test]
    fn the_nearest_policy_that_says_something_counts() {
        let pod = json!({"metadata": {"labels": {"app": "web"}}});
        let strict = json!({"mtls": {"mode": "STRICT"}});
        let all = [
            policy("root", "late", &json!({"mtls": {"mode": "DISABLE"}}), "2026-01-02T00:00:00Z"),
            policy("root", "mesh", &strict, "2026-01-01T00:00:00Z"),
            policy("shop", "unset", &json!({"mtls": {"mode": "UNSET"}}), ""),
            policy(
                "shop",
                "web",
                &json!({"selector": {"matchLabels": {"app": "web"}}, "portLevelMtls": {"90": {"mode": "DISABLE"}, "9": {}}}),
                "",
            ),
            policy(
                "shop",
                "db",
                &json!({"selector": {"matchLabels": {"app": "db"}}, "mtls": {"mode": "DISABLE"}}),
                "",
            ),
        ];
        let wanted = "Effective PeerAuthentication:\n   Workload mTLS mode: STRICT\n   Port Level mTLS mode:\n\
                      \x20     9: STRICT\n      90: DISABLE\nApplied PeerAuthentication:\n   late.root, mesh.root, unset.shop, web.shop\n";
        assert_eq!(composed(&all, &pod, "root"), wanted);
        assert_eq!(
            composed(&[], &pod, "root"),
            "Effective PeerAuthentication:\n   Workload mTLS mode: PERMISSIVE\n"
        );
    }
}
