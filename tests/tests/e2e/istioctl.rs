//! istioctl in a mesh without Kubernetes: what it says of real proxies and a real
//! istiod, and what it says when something is not there.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("istioctl_shows_what_proxies_have_accepted", status),
    ("istioctl_finds_no_difference_between_istiod_and_envoy", difference),
    ("istioctl_shows_each_part_of_a_proxy", parts),
    ("istioctl_changes_log_levels_live", levels),
    ("istioctl_asks_istiod_for_pages_and_versions", pages),
    ("istioctl_says_what_to_do_when_something_is_not_there", errors),
];

/// A command of istioctl, which knows the mesh by its file.
fn istioctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Output> {
    let program = mesh.dir.join("bin/istioctl");
    let mut command = Command::new(program);
    command.args(args).env("ISTIOCTL_MESH", mesh.roster());
    command.output().context("istioctl")
}

/// What it prints when it succeeds.
fn said(mesh: &Mesh, args: &[&str]) -> anyhow::Result<String> {
    let output = istioctl(mesh, args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn status(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let table = said(mesh, &["proxy-status"])?;
    for pod in mesh.pods.iter().filter(|pod| !pod.workload.is_bare()) {
        let name = format!("{}.{}", pod.workload.name, pod.workload.namespace);
        let line = table.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.with_context(|| format!("no {name}: {table}"))?;
        ensure!(line.contains("CDS,LDS,EDS,RDS"), "{line}");
    }
    // An answer of Envoy may be under way.
    Mesh::wait("everything accepted", || {
        let by_type = said(mesh, &["ps", "--by-type", "-n", "default"])?;
        ensure!(
            by_type.lines().next().is_some_and(|head| head.contains("CDS") && head.contains("ECDS")),
            "{by_type}"
        );
        let states =
            by_type.lines().find(|line| line.starts_with("productpage-v1.default")).context("productpage")?;
        ensure!(states.matches("SYNCED").count() >= 4, "{states}");
        Ok(())
    })?;
    let json: serde_json::Value = serde_json::from_str(&said(mesh, &["ps", "-o", "json"])?)?;
    ensure!(
        json["resources"][0]["@type"] == "type.googleapis.com/envoy.service.status.v3.ClientConfig",
        "{json}"
    );
    Ok(())
}

fn difference(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let told = said(mesh, &["proxy-status", "productpage-v1.default"])?;
    for wanted in ["Clusters Match", "Listeners Match", "Routes Match (RDS last loaded at "] {
        ensure!(told.contains(wanted), "{told}");
    }
    // What another proxy has is another thing.
    let dump = said(mesh, &["proxy-config", "all", "reviews-v1", "-o", "json"])?;
    let file: PathBuf = mesh.dir.join("reviews.json");
    std::fs::write(&file, dump)?;
    let told =
        said(mesh, &["proxy-status", "productpage-v1.default", "--file", &file.display().to_string()])?;
    ensure!(told.contains("Listeners Don't Match") && told.contains("--- Istiod Listeners"), "{told}");
    Ok(())
}

fn parts(mesh: &mut Mesh) -> anyhow::Result<()> {
    let cases: [(&[&str], &[&str]); 9] = [
        (&["listeners", "productpage-v1", "--port", "15006"], &["ADDRESSES PORT", "15006"]),
        (
            &["clusters", "deployment/productpage", "--fqdn", "reviews"],
            &["outbound", "reviews.default.svc.cluster.local"],
        ),
        (&["routes", "productpage-v1", "--name", "9080"], &["VHOST NAME", "reviews.default"]),
        (&["endpoints", "svc/productpage.default", "--status", "healthy"], &["OUTLIER CHECK", "HEALTHY"]),
        (&["secret", "productpage-v1"], &["default ", "Cert Chain", "ROOTCA", "true"]),
        (&["bootstrap", "productpage-v1", "-o", "short"], &["Istio Version:", "Envoy Version:"]),
        (&["eds", "productpage-v1", "-o", "yaml"], &["- clusterName: outbound|"]),
        (
            &["all", "productpage-v1", "--with-headers"],
            &["------ SECRET INFO ------", "cluster/outbound|9080||"],
        ),
        (&["rootca-compare", "productpage-v1", "reviews-v1"], &["have the identical ROOTCA"]),
    ];
    for (args, wanted) in cases {
        let line: Vec<&str> = ["proxy-config"].iter().chain(args).copied().collect();
        let text = said(mesh, &line)?;
        for word in wanted {
            ensure!(text.contains(word), "{args:?} has no {word:?}: {text}");
        }
    }
    let json: serde_json::Value =
        serde_json::from_str(&said(mesh, &["pc", "c", "productpage-v1", "--subset", "v2", "-o", "json"])?)?;
    ensure!(json[0]["edsClusterConfig"]["edsConfig"]["ads"].is_object(), "{json}");
    Ok(())
}

fn levels(mesh: &mut Mesh) -> anyhow::Result<()> {
    let level = |text: &str| -> Option<String> {
        let line = text.lines().find(|line| line.trim().starts_with("rbac:"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    };
    let before = level(&said(mesh, &["proxy-config", "log", "reviews-v1.default"])?).context("rbac")?;
    let told = said(mesh, &["proxy-config", "log", "reviews-v1.default", "--level", "rbac:debug"])?;
    ensure!(told.starts_with("reviews-v1.default:\n") && level(&told).as_deref() == Some("debug"), "{told}");
    let back = format!("rbac:{before}");
    let told = said(mesh, &["pc", "log", "reviews-v1", "-n", "default", "--level", &back])?;
    ensure!(level(&told) == Some(before), "{told}");
    let output = istioctl(mesh, &["proxy-config", "log", "reviews-v1.default", "--level", "nosuch:debug"])?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && error.contains("unrecognized logger name: nosuch"), "{error}");
    Ok(())
}

fn pages(mesh: &mut Mesh) -> anyhow::Result<()> {
    let list = said(mesh, &["x", "internal-debug", "--list"])?;
    ensure!(list.contains("syncz") && list.contains("config_dump"), "{list}");
    let page = said(mesh, &["x", "internal-debug", "edsz?proxyID=productpage-v1.default"])?;
    ensure!(page.contains("outbound|9080||reviews.default.svc.cluster.local"), "{page}");
    let versions = said(mesh, &["version"])?;
    for wanted in ["client version: ", "control plane version: ", "data plane version: "] {
        ensure!(versions.contains(wanted), "{versions}");
    }
    let json: serde_json::Value = serde_json::from_str(&said(mesh, &["version", "-o", "json"])?)?;
    ensure!(json["meshVersion"][0]["Component"] == "istiod", "{json}");
    Ok(())
}

fn errors(mesh: &mut Mesh) -> anyhow::Result<()> {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["pc", "listeners", "reviews"], 1, "did you mean reviews-v1.default"),
        (&["pc", "listeners", "reviews-v1.other"], 1, "there is one in the namespace default: give -n"),
        (&["pc", "listeners", "deployment/nosuch"], 1, "no pods match \"deployment/nosuch\""),
        (&["pc", "listeners", "svc/nosuch.default"], 1, "there is no Service nosuch.default"),
        (
            &["pc", "clusters", "reviews-v1", "--proxy-admin-port", "1"],
            1,
            "is its Envoy running, with the admin port 1?",
        ),
        (&["ps", "--xds-port", "1"], 1, "istiod istiod.istio-system"),
        (&["ps", "nosuch.default", "--file", "/dev/null"], 1, "see istioctl proxy-status"),
        (&["pc", "listeners", "--nosuch"], 64, "--nosuch"),
    ];
    for (args, code, wanted) in cases {
        let output = istioctl(mesh, args)?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code), "{args:?}: {:?}: {error}", output.status);
        ensure!(error.contains(wanted), "{args:?} says: {error}");
    }
    Ok(())
}
