//! istioctl against a cluster whose pods run: the API server leads it to their Envoys
//! through the node's kubelet. And the checks of a live cluster.

use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::kube::Node;
use istio_tests::mesh::Mesh;
use istio_tests::program::Programs;
use serde_json::{Value, json};

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[("commands_analyze_finds_what_is_wrong_in_a_live_cluster", analyze)];

fn analyze(stage: &mut Stage) -> anyhow::Result<()> {
    const NAMESPACE: &str = "wrong";
    stage.define()?;
    stage.cluster.namespace(NAMESPACE, &[])?;
    let istio = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let objects = [
        istio(
            "VirtualService",
            "lost",
            json!({"hosts": ["lost.example.com"], "gateways": ["nosuch"],
                "http": [{"route": [{"destination": {"host": "nosuch"}}]}]}),
        ),
        istio(
            "VirtualService",
            "subset",
            json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web", "subset": "v9"}}]}]}),
        ),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80}]},
        }),
    ];
    stage.cluster.apply(&objects)?;
    let run = |args: &[&str]| -> anyhow::Result<Output> {
        let mut command = Command::new(stage.program.with_file_name("istioctl"));
        command.arg("--kubeconfig").arg(stage.cluster.kubeconfig()).args(args).output().context("istioctl")
    };
    let output = run(&["analyze", "-n", NAMESPACE, "-o", "json"])?;
    let messages: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let found: Vec<(&str, &str)> = messages
        .as_array()
        .context("a list")?
        .iter()
        .map(|one| (one["code"].as_str().unwrap_or_default(), one["origin"].as_str().unwrap_or_default()))
        .collect();
    for wanted in [
        ("IST0101", "VirtualService wrong/lost"),
        ("IST0101", "VirtualService wrong/subset"),
        ("IST0102", "Namespace wrong"),
        ("IST0118", "Service wrong/web"),
    ] {
        ensure!(found.contains(&wanted), "no {wanted:?}: {messages:#}");
    }
    // For people, with an exit code that scripts see; and only what is asked for.
    let output = run(&["analyze", "-n", NAMESPACE])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(79) && text.contains("Error [IST0101] (VirtualService wrong/lost)"),
        "{text}"
    );
    let quiet = ["-S", "IST0101=VirtualService wrong/*", "-S", "IST0118=*", "-S", "IST0102=*"];
    let args: Vec<&str> = ["analyze", "-n", NAMESPACE].iter().chain(&quiet).copied().collect();
    let output = run(&args)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let output = run(&["analyze", "-n", "nosuch"])?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("namespace \"nosuch\" not found"), "{output:?}");
    for name in ["lost", "subset"] {
        stage.cluster.delete("networking.istio.io/v1", "VirtualService", NAMESPACE, name)?;
    }
    stage.cluster.delete("v1", "Service", NAMESPACE, "web")
}

fn said(node: &Node, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(Programs::find()?.ours("istioctl"));
    let output =
        command.arg("--kubeconfig").arg(node.cluster.kubeconfig()).args(args).output().context("istioctl")?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What istioctl says of pods that it reaches as people do: by the API server and
/// the kubelet of their node.
pub(super) fn reach(node: &mut Node) -> anyhow::Result<()> {
    let pod = |app: &str| -> anyhow::Result<String> {
        let pods = node.pods("default", &json!({"app": app}));
        let pod = pods.first().with_context(|| format!("no pod of {app}"))?;
        Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    };
    let (page, reviews) = (pod("productpage")?, pod("reviews")?);
    let whole = format!("{page}.default");
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["proxy-config", "clusters", "svc/productpage", "--fqdn", "reviews"],
            &["reviews.default.svc.cluster.local"],
        ),
        (&["proxy-config", "log", &whole], &["rbac:"]),
        (&["proxy-config", "secret", "deployment/productpage-v1"], &["default", "ROOTCA"]),
        (&["proxy-status", "--by-type"], &[&whole]),
        (&["x", "authz", "check", &whole], &["ACTION   AuthorizationPolicy"]),
        (
            &["x", "describe", "pod", &reviews],
            &[
                "Service: reviews\n   Port: http 9080/HTTP targets pod port 9080\n",
                "Effective PeerAuthentication:\n   Workload mTLS mode: ",
            ],
        ),
        (&["x", "describe", "svc", "reviews"], &["Service: reviews\n"]),
        (&["version"], &["data plane version: "]),
    ];
    for (args, wanted) in cases {
        let text = Mesh::wait(&args.join(" "), || said(node, args))?;
        for word in wanted {
            ensure!(text.contains(word), "{args:?} has no {word:?}: {text}");
        }
    }
    // All pods are asked, in all namespaces.
    let graph: Value = serde_json::from_str(&said(node, &["graph", "-o", "json"])?)?;
    let names: Vec<&str> =
        graph["nodes"].as_array().context("nodes")?.iter().filter_map(|one| one["id"].as_str()).collect();
    for workload in
        ["default/productpage-v1", "default/reviews-v1", "default/reviews-v2", "default/details-v1"]
    {
        ensure!(names.contains(&workload), "no {workload}: {graph:#}");
    }
    let edges = graph["edges"].as_array().context("edges")?;
    ensure!(
        edges
            .iter()
            .any(|edge| edge["from"] == "default/productpage-v1" && edge["to"] == "default/details-v1"),
        "{graph:#}"
    );
    // What is not there is told in a line.
    let mut command = Command::new(Programs::find()?.ours("istioctl"));
    command.arg("--kubeconfig").arg(node.cluster.kubeconfig());
    let output = command.args(["pc", "clusters", &whole, "--proxy-admin-port", "1"]).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("with the admin port 1?"), "{error}");
    ensure!(error.trim_end().lines().count() == 1, "{error}");
    Ok(())
}
