//! What istioctl says of pods, Services and policies of a mesh without Kubernetes.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istio_tests::netns;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("commands_describe_a_pod_and_a_service", describe),
    ("commands_tell_which_policies_a_proxy_has", policies),
    ("commands_ask_prometheus_for_metrics", metrics),
    ("commands_of_istiod_ask_the_one_that_runs", request),
];

const POLICY: &str = "commands-policy.yaml";

fn istioctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(mesh.dir.join("bin/istioctl"));
    command.args(args).env("ISTIOCTL_MESH", mesh.roster()).output().context("istioctl")
}

fn said(mesh: &Mesh, args: &[&str]) -> anyhow::Result<String> {
    let output = istioctl(mesh, args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn describe(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let pod = said(mesh, &["x", "describe", "pod", "reviews-v2.default"])?;
    for wanted in [
        "Pod: reviews-v2\n",
        "Service: reviews\n   Port: http 9080/HTTP targets pod port 9080\n",
        "DestinationRule: reviews-destination for \"reviews\"\n   Matching subsets: v2\n      (Non-matching subsets v1,v3)\n",
        "VirtualService: reviews-route\n",
        "Match:  when headers are end-user=jason\n",
        "Effective PeerAuthentication:\n   Workload mTLS mode: ",
    ] {
        ensure!(pod.contains(wanted), "no {wanted:?}: {pod}");
    }
    let service = said(mesh, &["x", "describe", "svc", "reviews"])?;
    ensure!(
        service.starts_with("Service: reviews\n") && service.contains("Matching subsets: v1,v2,v3\n"),
        "{service}"
    );
    for (args, wanted) in [
        (
            ["x", "describe", "pod", "nosuch.default"],
            "there is no pod \"nosuch\" in the namespace \"default\"",
        ),
        (["x", "describe", "service", "reviews.other"], "there is one in the namespace default: give -n"),
    ] {
        let output = istioctl(mesh, &args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && error.contains(wanted), "{args:?}: {error}");
    }
    Ok(())
}

fn policies(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = said(mesh, &["x", "authz", "check", "details-v1.default"])?;
    mesh.write(
        POLICY,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: told, namespace: default}\n\
         spec: {selector: {matchLabels: {app: details}}, action: DENY, rules: [{to: [{operation: {paths: [/never]}}]}, {to: [{operation: {methods: [TRACE]}}]}]}\n",
    )?;
    let found = Mesh::wait("the policy at the proxy", || {
        let table = said(mesh, &["x", "authz", "check", "details-v1.default"])?;
        ensure!(
            table.lines().any(|line| line.split_whitespace().eq(["DENY", "told.default", "2"])),
            "{table}"
        );
        Ok(table)
    });
    fs::remove_file(mesh.objects.join(POLICY))?;
    ensure!(found?.starts_with("ACTION   AuthorizationPolicy"), "header");
    Mesh::wait("the policy is gone", || {
        ensure!(said(mesh, &["x", "authz", "check", "details-v1.default"])? == before, "still there");
        Ok(())
    })
}

fn metrics(mesh: &mut Mesh) -> anyhow::Result<()> {
    let output = istioctl(mesh, &["x", "metrics", "reviews-v1"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("--prometheus-url"), "{error}");
    let output = istioctl(mesh, &["x", "metrics"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("requires workload name"), "{error}");
    Ok(())
}

fn request(mesh: &mut Mesh) -> anyhow::Result<()> {
    let ask = |path: &str| {
        let mut command = netns::command(&mesh.istiod.namespace, &mesh.programs().ours("istiod"));
        command.args(["request", "GET", path]).output().context("istiod request")
    };
    let output = ask("debug/syncz")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(page.as_array().is_some_and(|proxies| proxies.len() >= mesh.pods.len()), "{page}");
    let output = ask("debug/config_dump")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("unsuccessful status code 400"), "{error}");
    Ok(())
}
