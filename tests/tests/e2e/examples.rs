//! The examples of istioctl's help in a mesh without Kubernetes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use istio_tests::examples::{Example, Shell, Suite};
use istio_tests::mesh::{ISTIOD, Mesh};
use istio_tests::netns;
use istio_tests::telemetry::prometheus::{Prometheus, Target};
use serde_json::{Value, json};

use super::Case;

pub(crate) const CASES: &[Case] = &[("commands_run_as_their_help_shows", help)];

/// What the examples name, and what it is here.
const NAMES: &[(&str, &str)] = &[
    ("deployment/web.shop", "deployment/productpage.default"),
    ("web-0.shop", "productpage-v1.default"),
    ("web-0 -n shop", "productpage-v1 -n default"),
    ("db-0.shop", "reviews-v1.default"),
    ("db.shop", "reviews.default"),
    ("web.shop", "productpage.default"),
    ("web -n shop", "productpage -n default"),
    // Metrics are told of workloads, which are called as their applications.
    ("productpage-v1.shop reviews-v1.shop", "productpage.default reviews.default"),
    ("x metrics productpage-v1", "x metrics productpage"),
    ("reviews-v1.shop", "reviews-v1.default"),
    ("-n shop", "-n default"),
    ("'shop,stock//web*'", "'default,stock//productpage*'"),
    ("istiod-5c868d8bdd-pmvgg", "istiod"),
    ("bookinfo.default", "waited.default"),
    ("/etc/bash_completion.d/", ""),
    ("--output-dir /tmp", "--output-dir reports"),
    ("10s", "1s"),
];

const WAITED: &str = "examples-waited.yaml";
/// What `x wait` waits for.
const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: waited, namespace: default}
spec: {hosts: [waited.example.org], http: [{directResponse: {status: 200}}]}
";

const DISCOVERED: &str = "examples-discovered.yaml";
/// A filter that productpage discovers by itself.
const FILTER: &str = r#"apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: discovered, namespace: default}
spec:
  workloadSelector: {labels: {app: productpage}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: ADD
      value:
        name: discovered
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "function envoy_on_response(handle) end"}
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain:
          filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: discovered
        config_discovery:
          config_source: {ads: {}, resource_api_version: V3}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]
"#;

/// Files that examples read: the samples, objects, and what proxies have.
fn files(shell: &Shell) -> anyhow::Result<()> {
    let dir = &shell.dir;
    fs::create_dir_all(dir.join("my-app-config"))?;
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").canonicalize()?;
    std::os::unix::fs::symlink(samples, dir.join("samples"))?;
    let object = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"default\"}}\n";
    fs::write(dir.join("cluster.json"), object)?;
    for line in [
        "istioctl proxy-config all productpage-v1.default -o json > config_dump.json",
        "istioctl proxy-config all productpage-v1.default -o json > web.json",
        "istioctl proxy-config all reviews-v1.default -o json > reviews.json",
        "istioctl graph -o json > mesh.json",
    ] {
        shell.said(line)?;
    }
    Ok(())
}

/// A Prometheus that all pods are scraped by, and a file by which istioctl finds it as a
/// pod beside istiod.
fn prometheus(mesh: &Mesh, dir: &Path) -> anyhow::Result<(Prometheus, PathBuf)> {
    let sidecars = mesh.pods.iter().filter(|pod| !pod.workload.is_bare());
    let targets: Vec<Target> = sidecars
        .map(|pod| Target {
            job: "proxies",
            address: format!("{}:{}", pod.workload.address, names::port::AGENT_STATUS),
            path: "/stats/prometheus",
            labels: Vec::new(),
        })
        .collect();
    let prometheus = Prometheus::start(&mesh.client, &dir.join("prometheus"), &targets)?;
    // The first number that is seen is no increase.
    for _ in 0..2 {
        prometheus.wait_scraped()?;
        for _ in 0..5 {
            mesh.productpage(None)?;
        }
    }
    prometheus.wait_scraped()?;
    let mut roster: Value = serde_json::from_str(&fs::read_to_string(mesh.roster())?)?;
    let pods = roster["pods"].as_array_mut().context("pods")?;
    pods.push(json!({
        "name": "prometheus", "namespace": "istio-system", "netns": mesh.client,
        "labels": {"app.kubernetes.io/name": "prometheus"},
    }));
    let file = dir.join("with-prometheus.yaml");
    fs::write(&file, roster.to_string())?;
    Ok((prometheus, file))
}

fn help(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let dir = mesh.dir.join("examples");
    fs::remove_dir_all(&dir).ok();
    let bin = mesh.dir.join("bin");
    let shell = Shell::open(&dir, &mesh.client, &[&bin])?.renamed(NAMES);
    let (prometheus, roster) = prometheus(mesh, &dir)?;
    let measured = shell.clone().with("ISTIOCTL_MESH", &roster);
    let shell = shell.with("ISTIOCTL_MESH", &mesh.roster());
    files(&shell)?;
    let token = mesh.istiod.token("istio-system", "default")?;
    shell.certificates((ISTIOD, 15012).into(), &mesh.istiod.root()?, &token)?;
    // The client knows istiod by another name, too.
    let hosts = netns::hosts_file(&mesh.client);
    let known = fs::read_to_string(&hosts)?;
    fs::write(&hosts, format!("{known}{ISTIOD} istiod.example.org\n"))?;
    mesh.write(WAITED, ROUTE)?;
    mesh.write(DISCOVERED, FILTER)?;
    let done = Mesh::wait("the filter that is discovered", || {
        let table = shell.said("istioctl proxy-config ecds productpage-v1.default")?;
        ensure!(table.contains("discovered"), "{table}");
        Ok(())
    })
    .and_then(|()| all(mesh, &shell, &measured));
    fs::write(&hosts, known)?;
    for name in [WAITED, DISCOVERED] {
        fs::remove_file(mesh.objects.join(name)).ok();
    }
    drop(prometheus);
    done?;
    mesh.wait_synced()
}

fn all(mesh: &Mesh, shell: &Shell, measured: &Shell) -> anyhow::Result<()> {
    let proxy = "deployment/productpage.default";
    let levels = ["istioctl admin log -o json".to_owned(), format!("istioctl proxy-config log {proxy}")];
    let before = [shell.said(&levels[0])?, shell.said(&levels[1])?];
    shell.type_all(Suite::Mesh, |example: &Example| {
        if example.line.starts_with("istioctl x metrics ") {
            return measured.type_in(example);
        }
        let is_gone = example.line.contains("--for=delete");
        if is_gone {
            fs::remove_file(mesh.objects.join(WAITED))?;
        }
        let typed = shell.type_in(example);
        if is_gone {
            mesh.write(WAITED, ROUTE)?;
        }
        if example.command == "proxy-config log" {
            shell.restore(proxy, &before[1])?;
        }
        typed
    })?;
    for (line, before) in levels.iter().zip(before) {
        ensure!(shell.said(line)? == before, "{line}: the levels are other ones than before");
    }
    // What Prometheus has counted is told.
    let table = measured.said("istioctl x metrics productpage")?;
    let row = table.lines().nth(1).context("no row")?;
    let rate: f64 = row.split_whitespace().nth(1).context("no rate")?.parse()?;
    ensure!(rate > 0.0, "{table}");
    Ok(())
}
