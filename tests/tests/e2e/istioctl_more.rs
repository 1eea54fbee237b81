//! Further commands of istioctl in a mesh without Kubernetes: what istiod logs, which
//! proxies have an object, and an archive of all that without what is secret.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istio_tests::report;
use serde_json::Value;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("istioctl_changes_what_istiod_logs_while_it_runs", levels),
    ("istioctl_waits_until_proxies_have_an_object", wait),
    ("istioctl_says_which_clusters_istiod_reads", clusters),
    ("a_bug_report_has_everything_but_secrets", bug_report),
];

fn istioctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(mesh.dir.join("bin/istioctl"));
    command.args(args).env("ISTIOCTL_MESH", mesh.roster()).current_dir(&mesh.dir);
    command.output().context("istioctl")
}

fn said(mesh: &Mesh, args: &[&str]) -> anyhow::Result<String> {
    let output = istioctl(mesh, args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn levels(mesh: &mut Mesh) -> anyhow::Result<()> {
    let level = |scope: &str| -> anyhow::Result<String> {
        let all: Value = serde_json::from_str(&said(mesh, &["admin", "log", "-o", "json"])?)?;
        let all = all.as_array().context("a list")?;
        let one = all.iter().find(|one| one["scope_name"] == scope).context("no such scope")?;
        Ok(one["log_level"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(level("ads")? == "info", "info at first");
    let table = said(mesh, &["admin", "log", "istiod"])?;
    ensure!(table.starts_with("ACTIVE SCOPE   DESCRIPTION "), "{table}");
    let before = mesh.istiod.output().matches("\tdebug\tads\t").count();
    said(mesh, &["admin", "log", "--level", "ads:debug,ca:none"])?;
    ensure!(level("ads")? == "debug" && level("ca")? == "none", "levels are those that were set");
    // Each stream of istioctl itself is worth a line.
    Mesh::wait("lines of level debug", || {
        said(mesh, &["x", "internal-debug", "adsz?push=true"])?;
        ensure!(mesh.istiod.output().matches("\tdebug\tads\t").count() > before, "no line");
        Ok(())
    })?;
    for (args, wanted) in [
        (["admin", "log", "--level", "nosuch:info"], "unknown scope name: nosuch; there are ads, "),
        (["admin", "log", "--stack-trace-level", "ads:debug"], "istiod logs no stack traces"),
        (["admin", "log", "--ctrlz_port", "1"], "istiod --ctrlz_port"),
    ] {
        let output = istioctl(mesh, &args)?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?} says: {error}");
        ensure!(error.trim_end().lines().count() == 1, "{args:?}: {error}");
    }
    said(mesh, &["admin", "log", "--reset"])?;
    ensure!(level("ads")? == "info" && level("ca")? == "info", "all levels are info again");
    Ok(())
}

fn wait(mesh: &mut Mesh) -> anyhow::Result<()> {
    const FILE: &str = "reviews-route.yaml";
    mesh.wait_synced()?;
    let object = ["x", "wait", "virtualservice", "reviews-route.default", "--timeout", "20s"];
    let text = mesh.read(FILE)?;
    let told = said(mesh, &object)?;
    ensure!(told.starts_with("Resource VirtualService/default/reviews-route present on "), "{told}");
    // At once after it was written: it is not on the proxies of before that it waits for.
    for subset in ["v3", "v2"] {
        mesh.write(FILE, &text.replace("subset: v1", &format!("subset: {subset}")))?;
        said(mesh, &object)?;
        ensure!(super::version(mesh, None)? == subset, "the route leads to {subset} at once");
    }
    mesh.write(FILE, &text)?;
    let one = ["--proxy", "productpage-v1.default", "-v"];
    let output = istioctl(mesh, &object.iter().chain(&one).copied().collect::<Vec<_>>())?;
    let (told, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(told.ends_with("present on 1 out of 1 sidecars\n") && error.contains("1 of 1"), "{told} {error}");
    let other = ["x", "wait", "--for=delete", "virtualservice", "nosuch.default"];
    ensure!(said(mesh, &other)?.contains("absent from"), "what is not there is absent");
    for (args, wanted) in [
        (&["x", "wait", "virtualservice", "nosuch"][..], "there is no VirtualService \"nosuch\""),
        (&["x", "wait", "pod", "reviews-v1"], "type pod is not recognized"),
        (
            &["x", "wait", "--for=delete", "virtualservice", "reviews-route", "--timeout", "1s"],
            "timeout expired before resource VirtualService/default/reviews-route",
        ),
    ] {
        let output = istioctl(mesh, args)?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?} says: {error}");
    }
    Ok(())
}

fn clusters(mesh: &mut Mesh) -> anyhow::Result<()> {
    let table = said(mesh, &["remote-clusters"])?;
    let mut lines = table.lines();
    ensure!(lines.next().is_some_and(|head| head.starts_with("NAME ")), "{table}");
    let words: Vec<&str> = lines.next().context("no cluster")?.split_whitespace().collect();
    ensure!(words.starts_with(&["Kubernetes", "synced"]), "{table}");
    Ok(())
}

fn bug_report(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    // A credential of a gateway, and a setting that nobody should have written there.
    let marker = "bWFya2VyLW9mLWEta2V5";
    let objects = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: default}}\ntype: Opaque\n\
         data: {{tls.key: {marker}}}\n---\napiVersion: v1\nkind: ConfigMap\n\
         metadata: {{name: settings, namespace: default}}\ndata: {{a: \"url: https://user:hunter2@host/\", dbPassword: hunter3}}\n"
    );
    mesh.write("secrets.yaml", &objects)?;
    let out = mesh.dir.join("report");
    let dir = out.display().to_string();
    let told = said(mesh, &["bug-report", "--output-dir", &dir, "--exclude", "//ratings*"])?;
    fs::remove_file(mesh.objects.join("secrets.yaml"))?;
    ensure!(told.ends_with("Done.\n"), "{told}");
    let files = report::read(&out.join("bug-report.tar.gz"))?;
    for name in [
        "versions",
        "importance",
        "istio/istio-system/istiod/discovery.log",
        "istio/istio-system/istiod/debug/configz",
        "istio/istio-system/istiod/debug/syncz",
        "istio/istio-system/istiod/metrics",
        "proxies/default/reviews-v1/config_dump?include_eds",
        "proxies/default/reviews-v1/clusters",
        "proxies/default/reviews-v1/istio-proxy.log",
        "cluster/objects/secrets.yaml",
        "cluster/objects/reviews-route.yaml",
        "analyze/allNamespaces/allNamespaces",
    ] {
        ensure!(files.contains_key(name), "no {name}: {:?}; {:?}", files.keys(), files.get("errors"));
    }
    ensure!(!files.keys().any(|name| name.contains("ratings-v1")), "what is excluded is out");
    ensure!(files["versions"].contains("control plane version"), "{}", files["versions"]);
    ensure!(files["cluster/objects/secrets.yaml"].contains("tls.key"), "names of parts stay");
    let dump: Value = serde_json::from_str(&files["proxies/default/reviews-v1/config_dump?include_eds"])?;
    ensure!(dump["configs"].as_array().is_some_and(|all| all.len() > 4), "it is a whole dump");
    // Every key and token that there is in this mesh, by a part of its middle.
    let token = said_by(mesh, &["token", "--service-account", "default/x", "--state-dir"])?;
    let mut secrets = vec![marker.to_owned(), "hunter2".to_owned(), "hunter3".to_owned()];
    secrets.push(token.rsplit('.').next().context("a token has parts")?.trim().to_owned());
    for entry in walk(&mesh.istiod.state)? {
        let text = String::from_utf8_lossy(&fs::read(&entry)?).into_owned();
        if text.contains("PRIVATE KEY") {
            secrets.push(text.lines().nth(1).context("a line of the key")?.to_owned());
        }
    }
    ensure!(secrets.len() > 4, "istiod has a key at least");
    report::lacks(&files, &secrets.iter().map(String::as_str).collect::<Vec<_>>())?;
    let keys = files.values().filter(|text| text.contains("PRIVATE KEY-----"));
    ensure!(keys.clone().all(|text| text.contains("PRIVATE KEY----- [redacted]")), "no key is whole");
    // Nothing is written for a look.
    let told = said(mesh, &["bug-report", "--dry-run", "--output-dir", "/nonexistent/x"])?;
    ensure!(told.contains("would be in it: istio/istio-system/istiod/discovery.log"), "{told}");
    Ok(())
}

/// What istiod's own program prints.
fn said_by(mesh: &Mesh, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(mesh.programs().ours("istiod")).args(args).arg(&mesh.istiod.state).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// All files below a directory.
fn walk(dir: &std::path::Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
