//! The examples of istioctl's help against a real API server: those about objects alone,
//! and those about pods that run.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use istio_tests::examples::{Shell, Suite, of};
use istio_tests::kube::{Node, clients};
use istio_tests::mesh::Mesh;
use istio_tests::program::Programs;
use istio_tests::report;
use serde_json::{Value, json};

use super::install::{SYSTEM, file};
use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[("examples_of_the_help_about_objects_do_what_they_say", objects)];

/// Namespace of the examples.
const SHOP: &str = "shop";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const MUTATING: &str = "MutatingWebhookConfiguration";
const NETWORKING: &str = "networking.istio.io/v1";

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn config_map(namespace: &str, name: &str, key: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": {key: value},
    })
}

// ---- Objects alone ----

/// What there is: two revisions, a workload's account, and what it is told of the mesh.
fn scene(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for revision in ["1-8-0", "1-8-1"] {
        let chart = stage.cluster.render("istiod", "istiod", SYSTEM, &json!({"revision": revision}))?;
        let injector = format!("istio-sidecar-injector-{revision}");
        all.extend(chart.into_iter().filter(|one| {
            let is_map = one["kind"] == "ConfigMap" && one["metadata"]["name"] == *injector;
            one["kind"] == MUTATING || one["kind"] == "Service" || is_map
        }));
    }
    all.extend([
        config_map(SYSTEM, "istio", "mesh", "trustDomain: example.org\n"),
        config_map(SYSTEM, "istio-sidecar-injector", "values", "{}"),
        config_map(SHOP, "istio-ca-root-cert", "root-cert.pem", "ROOT\n"),
        // What the cluster's token controller would fill.
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "istio-reader-service-account-istio-remote-secret-token", "namespace": SYSTEM,
                "annotations": {"kubernetes.io/service-account.name": "istio-reader-service-account"},
            },
            "data": {"ca.crt": "Uk9PVA==", "token": "VE9LRU4="},
        }),
    ]);
    Ok(all)
}

fn objects(stage: &mut Stage) -> anyhow::Result<()> {
    stage.define()?;
    stage.cluster.namespace(SYSTEM, &[])?;
    stage.cluster.namespace(SHOP, &[])?;
    stage.cluster.account(SHOP, "web")?;
    stage.cluster.account(SYSTEM, "istio-reader-service-account")?;
    let scene = scene(stage)?;
    stage.cluster.apply(&scene)?;
    let done = typed(stage);
    for one in &scene {
        let [version, kind] = ["/apiVersion", "/kind"].map(|pointer| text(one, pointer));
        stage.cluster.delete(version, kind, text(one, "/metadata/namespace"), text(one, "/metadata/name"))?;
    }
    for tag in ["prod", "default"] {
        stage.cluster.delete(ADMISSION, MUTATING, "", &format!("istio-revision-tag-{tag}")).ok();
        stage.cluster.delete("v1", "Service", SYSTEM, &format!("istiod-revision-tag-{tag}")).ok();
    }
    stage.cluster.delete(NETWORKING, "WorkloadGroup", SHOP, "web").ok();
    done
}

fn typed(stage: &Stage) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let program = stage.program.parent().context("a program has a folder")?;
    let shell =
        Shell::open(dir.path(), "", &[program, &clients()?])?.with("KUBECONFIG", &stage.cluster.kubeconfig());
    for name in ["c0.yaml", "c1.yaml"] {
        fs::copy(stage.cluster.kubeconfig(), dir.path().join(name))?;
    }
    let stored = |kind: &str, namespace: &str, name: &str| {
        let version = if kind == MUTATING { ADMISSION } else { "v1" };
        anyhow::Ok(stage.cluster.get(version, kind, namespace, name)?.is_some())
    };
    let has_tag = || stored(MUTATING, "", "istio-revision-tag-prod");
    // Each does something that the next one needs.
    let order = |line: &str| {
        let first = ["istioctl x workload group", "istioctl tag generate", "istioctl tag set"];
        first.iter().position(|head| line.starts_with(head)).unwrap_or(first.len())
            + usize::from(line.starts_with("istioctl tag remove"))
    };
    let mut all = of(Suite::Objects);
    all.sort_by_key(|example| order(&example.line));
    for example in &all {
        shell.type_in(example)?;
        match example.line.as_str() {
            line if line.ends_with("> group.yaml") => {
                shell.said("kubectl apply -f group.yaml")?;
            }
            line if line.ends_with("| kubectl --kubeconfig=c1.yaml apply -f -") => {
                ensure!(stored("Secret", SYSTEM, "istio-remote-secret-c0")?, "{line}");
            }
            line if line.ends_with("| kubectl --kubeconfig=c1.yaml delete -f -") => {
                ensure!(!stored("Secret", SYSTEM, "istio-remote-secret-c0")?, "{line}");
            }
            line if line.starts_with("istioctl tag set prod ") => ensure!(has_tag()?, "{line}"),
            line if line.starts_with("istioctl tag remove prod") => ensure!(!has_tag()?, "{line}"),
            line if line.ends_with("-o config") => {
                let files = dir.path().join("config");
                ensure!(files.join("cluster.env").is_file() && files.join("istio-token").is_file(), "{line}");
                fs::remove_dir_all(files)?;
            }
            _ => {}
        }
    }
    let objects = fs::read_to_string(dir.path().join("tag.yaml"))?;
    ensure!(objects.contains("istio.io/tag: prod"), "{objects}");
    Ok(())
}

// ---- Pods that run ----

/// Namespace of what `kube-inject` injects.
const BY_HAND: &str = "by-hand";

fn pod(node: &Node, namespace: &str, app: &str) -> anyhow::Result<String> {
    let pods = node.pods(namespace, &json!({"app": app}));
    let pod = pods.first().with_context(|| format!("no pod of {app}"))?;
    Ok(text(pod, "/metadata/name").to_owned())
}

/// What `x wait` waits for.
fn route() -> Value {
    json!({
        "apiVersion": NETWORKING, "kind": "VirtualService",
        "metadata": {"name": "waited", "namespace": "default"},
        "spec": {"hosts": ["waited.example.org"], "http": [{"directResponse": {"status": 200}}]},
    })
}

/// An application that nothing but its file injects.
fn application() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "by-hand", "namespace": BY_HAND},
        "spec": {
            "selector": {"matchLabels": {"app": "by-hand"}},
            "template": {
                "metadata": {"labels": {"app": "by-hand"}},
                "spec": {"containers": [{
                    "name": "details", "image": "docker.io/istio/examples-bookinfo-details-v1:1.20.3",
                    "ports": [{"containerPort": 9080}],
                }]},
            },
        },
    })
}

/// Files that examples read: the samples, objects, and what proxies have.
fn files(node: &Node, shell: &Shell, [page, reviews]: [&str; 2]) -> anyhow::Result<()> {
    let dir = &shell.dir;
    fs::create_dir_all(dir.join("my-app-config"))?;
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").canonicalize()?;
    std::os::unix::fs::symlink(samples, dir.join("samples"))?;
    for (name, object) in [
        ("a.yaml", "samples/bookinfo/reviews-destination.yaml"),
        ("b.yaml", "samples/bookinfo/reviews-route.yaml"),
        ("my-app-config/c.yaml", "samples/bookinfo/peer-authentication.yaml"),
    ] {
        fs::write(dir.join(name), file(object)?)?;
    }
    fs::write(dir.join("app.yaml"), application().to_string())?;
    let injector = node.cluster.get("v1", "ConfigMap", SYSTEM, "istio-sidecar-injector")?;
    let injector = injector.context("no settings of the injector")?;
    fs::write(dir.join("values.yaml"), text(&injector, "/data/values"))?;
    for line in [
        "kubectl get namespaces,pods,services,endpointslices,virtualservices,gateways -A -o json > cluster.json".to_owned(),
        format!("istioctl proxy-config all {page}.default -o json > config_dump.json"),
        format!("istioctl proxy-config all {page}.default -o json > web.json"),
        format!("istioctl proxy-config all {reviews}.default -o json > reviews.json"),
        "istioctl graph -o json > mesh.json".to_owned(),
    ] {
        shell.said(&line)?;
    }
    Ok(())
}

/// All examples about pods, as a machine beside the cluster types them.
pub(super) fn run(node: &mut Node) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let programs = Programs::find()?;
    let [page, reviews, details] = [
        pod(node, "default", "productpage")?,
        pod(node, "default", "reviews")?,
        pod(node, "default", "details")?,
    ];
    let istiod = pod(node, SYSTEM, "istiod")?;
    let (web, db) = (format!("{page}.default"), format!("{reviews}.default"));
    let names = [
        ("deployment/web.shop", "deployment/productpage-v1.default"),
        ("web-0.shop", &web),
        ("web-0 -n shop", &format!("{page} -n default")),
        ("db-0.shop", &db),
        ("db.shop", "reviews.default"),
        ("web.shop", "productpage.default"),
        ("web -n shop", "productpage -n default"),
        ("reviews-v1.shop", &db),
        ("-n shop", "-n default"),
        ("'shop,stock//web*'", "'default,istio-system//productpage*'"),
        ("istiod-5c868d8bdd-pmvgg", &istiod),
        ("istiod.example.org", "istiod.istio-system.svc"),
        ("istio-ingressgateway -n istio-system", "istio-ingressgateway -n default"),
        ("bookinfo.default", "waited.default"),
        ("details-v1-fcff6c49c-kqnfk.test", &format!("{details}.default")),
        ("-n test", "-n default"),
        ("/etc/bash_completion.d/", ""),
        ("--output-dir /tmp", "--output-dir reports"),
        ("10s", "1s"),
    ];
    let shell = Shell::open(dir.path(), &node.outside, &[&programs.ours, &clients()?])?
        .with("KUBECONFIG", &node.cluster.kubeconfig())
        .renamed(&names);
    files(node, &shell, [&page, &reviews])?;
    let roots = node.cluster.get("v1", "ConfigMap", SYSTEM, "istio-ca-root-cert")?.context("no roots")?;
    let token = node.cluster.token(SYSTEM, "default", &["istio-ca"])?;
    let address = node.service(SYSTEM, "istiod")?;
    shell.certificates((address, 15012).into(), text(&roots, "/data/root-cert.pem"), &token)?;
    node.cluster.namespace(BY_HAND, &[])?;
    node.cluster.apply(&[route()])?;
    let done = typed_of_pods(node, &shell, &page);
    node.cluster.delete(NETWORKING, "VirtualService", "default", "waited").ok();
    done?;
    archive(&dir.path().join("bug-report.tar.gz"), &istiod, &page)
}

fn typed_of_pods(node: &Node, shell: &Shell, page: &str) -> anyhow::Result<()> {
    let proxy = format!("{page}.default");
    let levels = ["istioctl admin log -o json".to_owned(), format!("istioctl proxy-config log {proxy}")];
    let before = [shell.said(&levels[0])?, shell.said(&levels[1])?];
    shell.type_all(Suite::Cluster, |example| {
        let is_gone = example.line.contains("--for=delete");
        if is_gone {
            node.cluster.delete(NETWORKING, "VirtualService", "default", "waited")?;
        }
        let typed = shell.type_in(example);
        if is_gone {
            node.cluster.apply(&[route()])?;
        }
        match example.command.as_str() {
            "proxy-config log" => shell.restore(&proxy, &before[1])?,
            "kube-inject" => injected(node)?,
            _ => {}
        }
        typed
    })?;
    for (line, before) in levels.iter().zip(before) {
        ensure!(shell.said(line)? == before, "{line}: the levels are other ones than before");
    }
    Ok(())
}

/// Waits until the pod of the file that was injected runs, with its proxy; and takes it away.
fn injected(node: &Node) -> anyhow::Result<()> {
    let labels = json!({"app": "by-hand"});
    let pods = node.wait_ready(BY_HAND, &labels, 1)?;
    ensure!(pods[0].to_string().contains("istio-proxy"), "{}", pods[0]);
    node.cluster.client_command(&[
        "kubectl",
        "scale",
        "deployment/by-hand",
        "-n",
        BY_HAND,
        "--replicas=0",
    ])?;
    Mesh::wait("the end of the pod", || {
        ensure!(node.pods(BY_HAND, &labels).is_empty(), "it is there");
        Ok(())
    })?;
    node.cluster.delete("apps/v1", "Deployment", BY_HAND, "by-hand")
}

/// The report has what containers have printed, and nothing that is secret.
fn archive(path: &Path, istiod: &str, page: &str) -> anyhow::Result<()> {
    let files = report::read(path)?;
    for (name, wanted) in [
        (format!("istio/{SYSTEM}/{istiod}/discovery.log"), "istiod is listening"),
        (format!("proxies/default/{page}/istio-proxy.log"), "nvoy"),
        (format!("proxies/default/{page}/config_dump?include_eds"), "inbound|9080||"),
        ("versions".to_owned(), "data plane version"),
    ] {
        let text = files.get(&name).with_context(|| format!("no {name}: {:?}", files.get("errors")))?;
        ensure!(text.contains(wanted), "{name} has no {wanted:?}: {text}");
    }
    let keys = files.values().filter(|text| text.contains("PRIVATE KEY-----"));
    ensure!(keys.clone().all(|text| text.contains("PRIVATE KEY----- [redacted]")), "no key is whole");
    Ok(())
}
