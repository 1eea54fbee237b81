//! What istioctl says of pods, Services and policies of a mesh without Kubernetes,
//! and the examples of its help, as they are typed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istioctl::args::examples::{self, Example};

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("commands_describe_a_pod_and_a_service", describe),
    ("commands_tell_which_policies_a_proxy_has", policies),
    ("commands_ask_prometheus_for_metrics", metrics),
    ("commands_run_as_their_help_shows", help),
];

const POLICY: &str = "commands-policy.yaml";

/// Examples that are run beside a real API server, or nowhere, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("istioctl admin log", "it changes a control plane that serves other cases"),
    ("istioctl analyze --list", "of a cluster"),
    ("istioctl bug-report", "of a cluster"),
    ("istioctl create-remote-secret", "of a cluster"),
    ("istioctl dashboard", "it serves until it is interrupted"),
    ("istioctl kube-inject", "of a cluster"),
    ("istioctl proxy-config ecds", "no proxy has any"),
    ("istioctl proxy-status --xds-address istiod.example.org", "a host of its own"),
    ("istioctl remote-clusters", "of a cluster"),
    ("istioctl tag", "of a cluster"),
    ("istioctl x check-inject", "of a cluster"),
    ("istioctl x describe svc istio-ingressgateway", "a Service of a cluster"),
    ("istioctl x injector", "of a cluster"),
    ("istioctl x metrics", "there is no Prometheus"),
    ("istioctl x precheck", "of a cluster"),
    ("istioctl x wait", "of a cluster"),
    ("istioctl x workload", "of a cluster"),
];

fn istioctl(mesh: &Mesh, dir: &Path, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(mesh.dir.join("bin/istioctl"));
    command.args(args).current_dir(dir).env("ISTIOCTL_MESH", mesh.roster()).output().context("istioctl")
}

fn said(mesh: &Mesh, args: &[&str]) -> anyhow::Result<String> {
    let output = istioctl(mesh, &mesh.dir, args)?;
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
        let output = istioctl(mesh, &mesh.dir, &args)?;
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
    let output = istioctl(mesh, &mesh.dir, &["x", "metrics", "reviews-v1"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("--prometheus-url"), "{error}");
    let output = istioctl(mesh, &mesh.dir, &["x", "metrics"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && error.contains("requires workload name"), "{error}");
    Ok(())
}

/// The words of an example, about what is there.
fn here(example: &Example) -> Vec<String> {
    let names = [
        ("deployment/web.shop", "deployment/productpage.default"),
        ("web-0.shop", "productpage-v1.default"),
        ("web-0", "productpage-v1"),
        ("db-0.shop", "reviews-v1.default"),
        ("db.shop", "reviews.default"),
        ("web.shop", "productpage.default"),
        ("10s", "1s"),
    ];
    let word = |word: &String| match word.as_str() {
        "shop" => "default".to_owned(),
        "web" => "productpage".to_owned(),
        word => names
            .iter()
            .fold(word.to_owned(), |word, (name, own)| word.replace(name, own))
            .replace(".shop", ".default"),
    };
    example.words.iter().map(word).collect()
}

/// The files that examples name.
fn files(mesh: &Mesh, dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir.join("my-app-config"))?;
    let samples: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    if !dir.join("samples").exists() {
        std::os::unix::fs::symlink(samples.canonicalize()?, dir.join("samples"))?;
    }
    let object = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"default\"}}\n";
    for name in ["a.yaml", "b.yaml", "my-app-config/c.yaml", "cluster.json"] {
        fs::write(dir.join(name), object)?;
    }
    for (name, args) in [
        ("config_dump.json", &["proxy-config", "all", "productpage-v1.default", "-o", "json"][..]),
        ("web.json", &["proxy-config", "all", "productpage-v1.default", "-o", "json"]),
        ("reviews.json", &["proxy-config", "all", "reviews-v1.default", "-o", "json"]),
        ("clusters.json", &["x", "envoy-stats", "productpage-v1.default", "-t", "clusters", "-o", "json"]),
        ("mesh.json", &["graph", "-o", "json"]),
    ] {
        fs::write(dir.join(name), said(mesh, args)?)?;
    }
    Ok(())
}

fn help(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let dir = mesh.dir.join("examples");
    files(mesh, &dir)?;
    let (mut run, mut left_out, mut failed) = (0, Vec::new(), Vec::new());
    for example in examples::all() {
        let command = format!("istioctl {}", example.command);
        // Without files it is a cluster that is looked at.
        let is_live = example.line.starts_with("istioctl analyze")
            && !example.words.iter().any(|word| word == "--use-kube=false" || word == "-L");
        if is_live
            || NOT_HERE.iter().any(|(head, _)| example.line.starts_with(head) || command.starts_with(head))
        {
            left_out.push(example.line);
            continue;
        }
        let words = here(&example);
        let args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let output = istioctl(mesh, &dir, &args)?;
        let code = output.status.code().unwrap_or(-1);
        // A request may be refused, and files may have something wrong with them.
        let is_well = match args.first() {
            Some(&"why") => matches!(code, 0 | 2 | 3),
            Some(&"analyze") => matches!(code, 0 | 79),
            _ => code == 0,
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !is_well {
            failed.push(format!("{} (as {args:?}) ends with {code}: {said}", example.line));
        }
        run += 1;
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    ensure!(run >= 30, "only {run} were run; left out: {left_out:?}");
    Ok(())
}
