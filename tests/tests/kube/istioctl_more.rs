//! Further commands of istioctl against a real API server: tags, who injects what,
//! Secrets for other clusters, files of workloads, checks, and an archive of it all.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::report;
use serde_json::{Value, json};

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("istioctl_sets_lists_and_removes_tags_and_says_who_injects", tags),
    ("istioctl_makes_a_secret_for_another_cluster_and_files_for_a_host", credentials),
    ("istioctl_reports_a_cluster_without_its_secrets", bug_report),
];

/// Namespace of the control plane.
const ISTIO: &str = "istio-system";
/// Namespace of these cases.
const NAMESPACE: &str = "more";
const MUTATING: &str = "MutatingWebhookConfiguration";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

fn istioctl(stage: &Stage, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(stage.program.with_file_name("istioctl"));
    command.arg("--kubeconfig").arg(stage.cluster.kubeconfig()).args(args).output().context("istioctl")
}

fn said(stage: &Stage, args: &[&str]) -> anyhow::Result<String> {
    let output = istioctl(stage, args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn refused(stage: &Stage, args: &[&str], wanted: &str) -> anyhow::Result<()> {
    let output = istioctl(stage, args)?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?} says: {error}");
    ensure!(error.trim_end().lines().count() == 1, "{args:?}: {error}");
    Ok(())
}

fn tags(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace(ISTIO, &[])?;
    stage.cluster.namespace(NAMESPACE, &[("istio.io/rev", "prod")])?;
    let chart = stage.cluster.render("istiod", "istiod", ISTIO, &json!({"revision": "canary"}))?;
    let is_meant = |one: &&Value| {
        let is_map = one["kind"] == "ConfigMap" && one["metadata"]["name"] == "istio-sidecar-injector-canary";
        one["kind"] == MUTATING || one["kind"] == "Service" || is_map
    };
    let objects: Vec<Value> = chart.iter().filter(is_meant).cloned().collect();
    ensure!(objects.len() == 3, "{objects:?}");
    stage.cluster.apply(&objects)?;
    let outcome = tags_of(stage);
    for one in &objects {
        let text = |pointer: &str| one.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        stage.cluster.delete(
            text("/apiVersion"),
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        )?;
    }
    outcome
}

fn tags_of(stage: &Stage) -> anyhow::Result<()> {
    let tag = "istio-revision-tag-prod";
    let text = said(stage, &["tag", "generate", "prod", "-r", "canary"])?;
    ensure!(
        text.contains(&format!("name: {tag}")) && text.contains("name: istiod-revision-tag-prod"),
        "{text}"
    );
    ensure!(stage.cluster.get(ADMISSION, MUTATING, "", tag)?.is_none(), "it is only printed");
    let told = said(stage, &["tag", "set", "prod", "--revision", "canary"])?;
    ensure!(
        told.starts_with("Revision tag \"prod\" created, referencing control plane revision \"canary\"."),
        "{told}"
    );
    let made = stage.cluster.get(ADMISSION, MUTATING, "", tag)?.context("the tag's webhooks")?;
    ensure!(made["webhooks"][0]["clientConfig"]["service"]["name"] == "istiod-canary", "{made}");
    let list = said(stage, &["tag", "list"])?;
    ensure!(list.starts_with("TAG") && list.contains("prod canary   more\n"), "{list}");
    let json: Value = serde_json::from_str(&said(stage, &["tag", "list", "-o", "json"])?)?;
    ensure!(json[0] == json!({"tag": "prod", "revision": "canary", "namespaces": [NAMESPACE]}), "{json}");
    refused(stage, &["tag", "set", "prod", "-r", "canary"], "already exists, and --overwrite is false")?;
    said(stage, &["tag", "set", "prod", "-r", "canary", "--overwrite"])?;
    refused(
        stage,
        &["tag", "set", "canary", "-r", "canary"],
        "existing control plane revision with same name",
    )?;
    refused(stage, &["tag", "set", "a", "-r", "nosuch"], "with revision \"nosuch\"")?;
    refused(stage, &["tag", "remove", "nosuch"], "cannot remove tag \"nosuch\"")?;
    let told = said(stage, &["x", "check-inject", "-n", NAMESPACE, "-l", "app=web"])?;
    let line = told.lines().find(|line| line.starts_with(tag)).context("the tag's line")?;
    ensure!(line.contains("✔") && line.ends_with("Namespace label istio.io/rev=prod matches"), "{told}");
    let told = said(stage, &["x", "injector", "list"])?;
    ensure!(told.contains("\nmore ") && told.contains(tag) && told.contains("proxyv2"), "{told}");
    let told = said(stage, &["tag", "remove", "prod"])?;
    ensure!(
        told.contains("1 namespace(s) still injected") && told.ends_with("Aborting operation.\n"),
        "{told}"
    );
    ensure!(said(stage, &["tag", "remove", "prod", "-y"])? == "Revision tag prod removed\n", "removed");
    ensure!(stage.cluster.get(ADMISSION, MUTATING, "", tag)?.is_none(), "its webhooks are gone");
    ensure!(
        stage.cluster.get("v1", "Service", ISTIO, "istiod-revision-tag-prod")?.is_none(),
        "its Service is gone"
    );
    Ok(())
}

fn credentials(stage: &mut Stage) -> anyhow::Result<()> {
    stage.define()?;
    stage.cluster.namespace(ISTIO, &[])?;
    stage.cluster.namespace(NAMESPACE, &[])?;
    stage.cluster.account(ISTIO, "istio-reader-service-account")?;
    // What the cluster's token controller would fill.
    let name = "istio-reader-service-account-istio-remote-secret-token";
    stage.cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": name, "namespace": ISTIO,
            "annotations": {"kubernetes.io/service-account.name": "istio-reader-service-account"},
        },
        "data": {"ca.crt": "Uk9PVA==", "token": "VE9LRU4="},
    })])?;
    let text = said(stage, &["create-remote-secret", "--name", "c0", "--server", "https://c0.example.org"])?;
    stage.cluster.delete("v1", "Secret", ISTIO, name)?;
    let secret: Value = serde_saphyr::from_str(text.trim_end_matches("---\n"))?;
    ensure!(secret["metadata"]["labels"]["istio/multiCluster"] == "true", "{text}");
    let config: Value = serde_saphyr::from_str(secret["stringData"]["c0"].as_str().context("c0")?)?;
    ensure!(config["clusters"][0]["cluster"]["server"] == "https://c0.example.org", "{config}");
    ensure!(config["users"][0]["user"]["token"] == "TOKEN", "{config}");
    let unknown = ["create-remote-secret", "--service-account", "nosuch", "--create-service-account=false"];
    refused(stage, &unknown, "there is no service account nosuch")?;

    let map = |name: &str, namespace: &str, key: &str, text: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {key: text},
        })
    };
    let maps = [
        map("istio", ISTIO, "mesh", "trustDomain: example.org\n"),
        map(
            "istio-sidecar-injector",
            ISTIO,
            "values",
            r#"{"global": {"multiCluster": {"clusterName": "c1"}}}"#,
        ),
        map("istio-ca-root-cert", NAMESPACE, "root-cert.pem", "ROOT\n"),
    ];
    stage.cluster.apply(&maps)?;
    stage.cluster.account(NAMESPACE, "vm")?;
    let create =
        ["x", "workload", "group", "create", "--name", "db", "-n", NAMESPACE, "-s", "vm", "-p", "sql=5432"];
    stage.cluster.apply_yaml(&said(stage, &create)?)?;
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("host").display().to_string();
    let configure = ["x", "workload", "entry", "configure", "--name", "db", "-n", NAMESPACE, "-o", &out];
    let told = said(stage, &[&configure[..], &["--ingressIP", "10.0.0.9", "--autoregister"]].concat())?;
    ensure!(told.contains("was successful"), "{told}");
    let file = |name: &str| fs::read_to_string(dir.path().join("host").join(name)).context(name.to_owned());
    ensure!(file("hosts")? == "10.0.0.9 istiod.istio-system.svc\n", "hosts");
    ensure!(
        file("root-cert.pem")? == "ROOT\n" && file("istio-token")?.split('.').count() == 3,
        "credentials"
    );
    let env = file("cluster.env")?;
    for line in ["ISTIO_INBOUND_PORTS='5432'", "SERVICE_ACCOUNT='vm'", "TRUST_DOMAIN='example.org'"] {
        ensure!(env.lines().any(|known| known == line), "no {line}: {env}");
    }
    let mesh = file("mesh.yaml")?;
    ensure!(mesh.contains("ISTIO_META_CLUSTER_ID: c1") && mesh.contains("AUTO_REGISTER_GROUP: db"), "{mesh}");
    for one in &maps {
        let text = |pointer: &str| one.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        stage.cluster.delete("v1", "ConfigMap", text("/metadata/namespace"), text("/metadata/name"))?;
    }
    stage.cluster.delete("networking.istio.io/v1", "WorkloadGroup", NAMESPACE, "db")?;

    // An administrator may install; a service account may not.
    said(stage, &["x", "precheck"])?;
    let kubeconfig = stage.cluster.kubeconfig_of(NAMESPACE, "vm")?.display().to_string();
    let output = istioctl(stage, &["x", "precheck", "--skip-controlplane"])?;
    ensure!(output.status.success(), "nothing is looked at");
    let output = istioctl(stage, &["x", "precheck", "--kubeconfig", &kubeconfig])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(())
}

fn bug_report(stage: &mut Stage) -> anyhow::Result<()> {
    stage.define()?;
    stage.cluster.namespace(ISTIO, &[])?;
    stage.cluster.namespace(NAMESPACE, &[])?;
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": NAMESPACE},
            "stringData": {"tls.key": "hunter-one"},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": NAMESPACE},
            "data": {"app.yaml": "password: hunter-two\nmode: fast\n"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": NAMESPACE, "labels": {"app": "web"}},
            "spec": {"containers": [{
                "name": "a", "image": "a",
                "env": [{"name": "DB_PASSWORD", "value": "hunter-three"}, {"name": "MODE", "value": "fast"}],
            }]},
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"name": "own", "namespace": NAMESPACE}, "spec": {},
        }),
    ];
    stage.cluster.apply(&objects)?;
    let dir = tempfile::tempdir()?;
    let out = dir.path().display().to_string();
    let told =
        said(stage, &["bug-report", "--output-dir", &out, "--include", NAMESPACE, "--timeout", "60s"])?;
    let path = dir.path().join("bug-report.tar.gz");
    let files = report::read(&path)?;
    said(
        stage,
        &["bug-report", "--output-dir", &out, "--include", NAMESPACE, "--full-secrets", "--skip-analyze"],
    )?;
    let whole = report::read(&path)?;
    for one in &objects {
        let text = |pointer: &str| one.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        stage.cluster.delete(text("/apiVersion"), text("/kind"), NAMESPACE, text("/metadata/name"))?;
    }
    ensure!(told.ends_with("Done.\n"), "{told}");
    for (name, wanted) in [
        ("cluster/secrets", "tls.key"),
        ("cluster/k8s-resources", "web-0"),
        ("cluster/k8s-resources", "value: fast"),
        ("cluster/k8s-cluster-resources", "kind: Namespace"),
        ("cluster/crs", "name: own"),
        ("cluster/cluster-context", "gitVersion"),
        ("analyze/allNamespaces/allNamespaces", "code: IST0"),
    ] {
        let text = files.get(name).with_context(|| format!("no {name}: {:?}", files.get("errors")))?;
        ensure!(text.contains(wanted), "{name} has no {wanted:?}: {text}");
    }
    report::lacks(&files, &["hunter-one", "aHVudGVyLW9uZQ", "hunter-two", "hunter-three"])?;
    ensure!(whole["cluster/secrets"].contains("aHVudGVyLW9uZQ"), "who wants all gets all");
    Ok(())
}
