//! istioctl against a real API server: how it is known to istiod, and what it says
//! when something is not there. Pods that run are in a suite of their own.

use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("istioctl_is_known_to_istiod_by_a_token_of_the_api_server", token),
    ("istioctl_says_which_pods_there_are", pods),
    ("istioctl_says_that_there_is_no_cluster", no_cluster),
];

fn istioctl(stage: &Stage, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(stage.program.with_file_name("istioctl"));
    command.arg("--kubeconfig").arg(stage.cluster.kubeconfig()).args(args).output().context("istioctl")
}

fn token(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace("istio-system", &[])?;
    let istiod = stage.istiod()?;
    let address = istiod.secure.to_string();
    // Its certificate is verified with the roots that istiod has written into the cluster.
    let output = istioctl(stage, &["proxy-status", "--xds-address", &address, "-o", "json"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{error}");
    let states: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        states["controlPlane"]["identifier"].as_str().is_some_and(|id| id.contains("istiod")),
        "{states}"
    );
    let output = istioctl(stage, &["x", "internal-debug", "registryz", "--xds-address", &address])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nobody is known on a port without TLS, and no other name is taken.
    let plain = istiod.grpc.to_string();
    let cases = [
        (
            ["proxy-status", "--plaintext", "--xds-address", &plain, "--timeout", "20s", ""],
            "authentication required",
        ),
        (
            ["proxy-status", "--authority", "other", "--xds-address", &address, "--timeout", "20s"],
            "--insecure verifies nothing",
        ),
    ];
    for (args, wanted) in cases {
        let args: Vec<&str> = args.iter().copied().filter(|arg| !arg.is_empty()).collect();
        let output = istioctl(stage, &args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?}: {error}");
    }
    Ok(())
}

fn pods(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace("shop", &[])?;
    stage.cluster.namespace("other", &[])?;
    stage.cluster.apply(&[
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty", "namespace": "shop"},
            "spec": {"selector": {"app": "none"}, "ports": [{"port": 80}]},
        }),
    ])?;
    let cases: [(&[&str], &str); 6] = [
        (&["pc", "clusters", "web-0.other"], "there is one in the namespace shop: give -n"),
        (&["pc", "clusters", "web", "-n", "shop"], "did you mean web-0.shop?"),
        (&["pc", "clusters", "web-0.shop"], "web-0.shop, which is Pending"),
        (&["pc", "clusters", "svc/empty.shop"], "no pods match \"svc/empty.shop\""),
        (&["pc", "clusters", "deployment/nosuch.shop"], "deployment/nosuch in the namespace \"shop\""),
        (&["ps", "-i", "shop"], "no running Istio pods in \"shop\""),
    ];
    for (args, wanted) in cases {
        let output = istioctl(stage, args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{args:?}: {:?}", output.status);
        ensure!(error.contains(wanted), "{args:?} says: {error}");
    }
    stage.cluster.delete("v1", "Pod", "shop", "web-0")?;
    stage.cluster.delete("v1", "Service", "shop", "empty")
}

fn no_cluster(stage: &mut Stage) -> anyhow::Result<()> {
    let program = stage.program.with_file_name("istioctl");
    let cases: [(&[&str], &str); 3] = [
        (&["ps"], "--kubeconfig"),
        (&["ps", "--context", "nosuch"], "--context nosuch"),
        (&["ps", "--kubeconfig", "/nonexistent/config"], "--kubeconfig /nonexistent/config"),
    ];
    for (args, wanted) in cases {
        let output = Command::new(&program).args(args).env_clear().env("HOME", "/nonexistent").output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?}: {error}");
        ensure!(error.trim_end().lines().count() == 1, "{args:?}: {error}");
    }
    // Where the tables come from a file, no cluster is needed: version tells it and goes on.
    let output = Command::new(&program).arg("version").env_clear().env("HOME", "/nonexistent").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.starts_with("client version: "), "{text}");
    Ok(())
}
