//! A whole cluster: istiod as the chart installs it, pods that are injected
//! and run, and faults under load. The cases build on each other, on one node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use istio_tests::app::PORT;
use istio_tests::client::{Answer, Ask};
use istio_tests::grpc::Channel;
use istio_tests::kube::{Node, crd};
use istio_tests::load::{Load, Report};
use istio_tests::mesh::Mesh;
use istio_tests::{netns, program};
use libtest_mimic::Trial;
use pki::key::{Algorithm, PrivateKey};
use proto::istio::v1::auth::IstioCertificateRequest;
use serde_json::{Map, Value, json};
use tonic::Code;

type Case = (&'static str, fn(&mut Node) -> anyhow::Result<()>);

/// In the order in which they must run; the first one makes what the others need.
const CASES: &[Case] = &[
    ("node_an_injected_bookinfo_speaks_mutual_tls", bookinfo),
    ("node_strict_refuses_plaintext", strict),
    ("node_a_route_takes_effect", route),
    ("node_a_gateway_serves_from_outside", gateway),
    ("node_one_of_two_istiods_is_killed_under_load", kill_istiod),
    ("node_the_api_server_is_away_under_load", kill_api),
    ("node_etcd_is_away_under_load", kill_etcd),
    ("node_istiod_does_nothing_that_its_roles_forbid", least_privilege),
];

const SYSTEM: &str = "istio-system";
const NAMESPACE: &str = "default";
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(10);
/// A new Service must be at an Envoy by then, once the API server is back.
const SOON: Duration = Duration::from_secs(2);
/// Connections of the load.
const CLIENTS: usize = 8;

/// A node that is shared by the cases, or that could not be made.
pub(super) type Shared = Arc<Mutex<Option<Result<Node, String>>>>;

/// Adds the cases.
pub(super) fn trials(trials: &mut Vec<Trial>, is_possible: bool) -> Shared {
    let shared = Shared::default();
    let can_run = is_possible && program::can_run().is_ok_and(|can| can);
    for &(name, case) in CASES {
        let shared = shared.clone();
        let trial = Trial::test(name, move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let node = shared.get_or_insert_with(|| start().map_err(|error| format!("{error:#}")));
            let node = node.as_mut().map_err(|error| error.clone())?;
            node.inside(case).map_err(|error| format!("{error:#}").into())
        });
        trials.push(trial.with_ignored_flag(!can_run));
    }
    shared
}

fn start() -> anyhow::Result<Node> {
    let mut node = Node::start("istio-kube-node")?;
    node.inside(|node| install(node).with_context(|| node.report()))?;
    node.inside(|node| apply_bookinfo(node).with_context(|| node.report()))?;
    Ok(node)
}

// ---- Installation ----

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The objects of a template of istiod's chart that has no more of templates
/// in it than names; lines that add labels are left out.
fn chart(template: &str) -> anyhow::Result<Vec<Value>> {
    let path = root().join("deploy/helm/istiod/templates").join(template);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let is_kept = |line: &&str| !(line.trim().starts_with("{{") && line.trim().ends_with("}}"));
    let mut text = text.lines().filter(is_kept).collect::<Vec<_>>().join("\n");
    for (from, to) in [
        ("{{ include \"istiod.name\" . }}", "istiod"),
        ("{{ include \"istiod.suffix\" . }}", ""),
        ("{{ .Release.Namespace | quote }}", SYSTEM),
        ("{{ .Release.Namespace }}", SYSTEM),
    ] {
        text = text.replace(from, to);
    }
    ensure!(!text.contains("{{"), "{template} has become more of a template: {text}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    Ok(objects.into_iter().filter(Value::is_object).collect())
}

/// The values of the chart, which the injector has too.
fn values() -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&std::fs::read_to_string(root().join("deploy/helm/istiod/values.yaml"))?)?)
}

fn install(node: &mut Node) -> anyhow::Result<()> {
    let cluster = &node.cluster;
    cluster.namespace(SYSTEM, &[])?;
    cluster.apply(&crd::definitions()?)?;
    cluster.account(SYSTEM, "istiod")?;
    for template in ["clusterrole.yaml", "clusterrolebinding.yaml", "role.yaml"] {
        cluster.apply(&chart(template)?)?;
    }
    cluster.wait_defined()?;
    let values = values()?;
    let config = json!({"policy": "enabled", "defaultTemplates": ["sidecar"], "templates": {}});
    let mut of_injector = Map::new();
    for name in ["global", "sidecarInjectorWebhook", "revision", "gateways"] {
        of_injector.insert(name.to_owned(), values[name].clone());
    }
    of_injector.insert("pilot".into(), json!({"cni": values["cni"], "env": values["env"]}));
    let map = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": SYSTEM}, "data": data});
    let mesh = json!({
        "trustDomain": "cluster.local",
        "rootNamespace": SYSTEM,
        "defaultConfig": {"discoveryAddress": "istiod.istio-system.svc:15012"},
        "enablePrometheusMerge": true,
    });
    cluster.apply(&[
        map("istio", json!({"mesh": mesh.to_string()})),
        map(
            "istio-sidecar-injector",
            json!({"config": config.to_string(), "values": Value::Object(of_injector).to_string()}),
        ),
        service(
            SYSTEM,
            "istiod",
            &[("grpc-xds", 15010, 15010), ("https-dns", 15012, 15012), ("https-webhook", 443, 15017)],
        ),
        istiod(),
    ])?;
    node.wait_ready(SYSTEM, &json!({"app": "istiod"}), 2)?;
    cluster_roots(node)?;
    node.cluster.apply(&[injector()])
}

fn service(namespace: &str, name: &str, ports: &[(&str, u16, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": ports},
    })
}

/// istiod as the chart's template says with its own values, but for two of it.
fn istiod() -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "istiod", "namespace": SYSTEM},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "istiod"}},
            "template": {
                "metadata": {"labels": {"app": "istiod", "istio.io/rev": "default", "sidecar.istio.io/inject": "false"}},
                "spec": {
                    "serviceAccountName": "istiod",
                    "securityContext": {"fsGroup": 1337},
                    "containers": [{
                        "name": "discovery",
                        "image": "localhost/pilot:latest",
                        "args": ["discovery", "--monitoringAddr=:15014", "--log_output_level=default:info"],
                        "readinessProbe": {
                            "httpGet": {"path": "/ready", "port": 8080}, "initialDelaySeconds": 1,
                            "periodSeconds": 3, "timeoutSeconds": 5,
                        },
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            field("POD_NAMESPACE", "metadata.namespace"),
                            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
                            {"name": "CLUSTER_ID", "value": "Kubernetes"},
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                            "runAsUser": 1337, "runAsGroup": 1337, "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "state", "mountPath": "/var/lib/istio/istiod"},
                            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
                            {"name": "cacerts", "mountPath": "/etc/cacerts", "readOnly": true},
                        ],
                    }],
                    "volumes": [
                        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
                        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
                            "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}]}},
                        {"name": "cacerts", "secret": {"secretName": "cacerts", "optional": true}},
                    ],
                },
            },
        },
    })
}

/// The roots that istiod published.
fn cluster_roots(node: &Node) -> anyhow::Result<String> {
    Mesh::wait("roots of the mesh in a ConfigMap", || {
        let map =
            node.cluster.get("v1", "ConfigMap", NAMESPACE, "istio-ca-root-cert")?.context("no ConfigMap")?;
        Ok(map["data"]["root-cert.pem"].as_str().context("no roots in it")?.to_owned())
    })
}

/// The injector's webhook, by a Service as in every cluster; istiod puts its
/// roots in.
fn injector() -> Value {
    let webhook = |name: &str, namespaces: Value, objects: Value| {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"),
            "clientConfig": {
                "service": {"name": "istiod", "namespace": SYSTEM, "path": "/inject", "port": 443},
            },
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchExpressions": namespaces},
            "objectSelector": {"matchExpressions": objects},
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector", "labels": {"istio.io/rev": "default", "app": "sidecar-injector"}},
        "webhooks": [webhook(
            "namespace",
            json!([
                {"key": "istio-injection", "operator": "In", "values": ["enabled"]},
            ]),
            json!([{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]),
        )],
    })
}

fn apply_bookinfo(node: &mut Node) -> anyhow::Result<()> {
    node.cluster.namespace(NAMESPACE, &[("istio-injection", "enabled")])?;
    // The webhook is known to the API server a moment after it was stored.
    Mesh::wait("injection", || {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "injected", "namespace": NAMESPACE},
            "spec": {"nodeName": "nowhere", "containers": [{"name": "app", "image": "example.com/none"}]},
        });
        node.cluster.apply(&[pod])?;
        let pod = node.cluster.get("v1", "Pod", NAMESPACE, "injected")?.context("no pod")?;
        node.cluster.delete("v1", "Pod", NAMESPACE, "injected")?;
        ensure!(pod.to_string().contains("istio-proxy"), "not injected");
        Ok(())
    })?;
    sample(node, "kubernetes/bookinfo.yaml")?;
    Ok(())
}

fn sample(node: &Node, file: &str) -> anyhow::Result<()> {
    let path = root().join("samples").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    node.cluster.apply_yaml(&text).with_context(|| file.to_owned())
}

// ---- Traffic ----

/// The pod with this label `app`.
fn pod(node: &Node, app: &str) -> anyhow::Result<(String, Ipv4Addr)> {
    let pods = node.pods(NAMESPACE, &json!({"app": app}));
    let pod = pods.first().with_context(|| format!("no pod of {app}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let address = text(&pod["status"]["podIP"]).parse().with_context(|| format!("address of {app}"))?;
    Ok((text(&pod["metadata"]["name"]), address))
}

fn ask_productpage(node: &Node) -> anyhow::Result<Ask> {
    let address = node.service(NAMESPACE, "productpage")?;
    Ok(Ask::get((address, PORT), "productpage:9080", "/productpage"))
}

fn productpage(node: &Node, user: Option<&str>) -> anyhow::Result<Value> {
    let ask = ask_productpage(node)?;
    let ask = if let Some(user) = user { ask.header("end-user", user) } else { ask };
    let answer: Answer = ask.from(&node.outside)?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    answer.json()
}

fn bookinfo(node: &mut Node) -> anyhow::Result<()> {
    for (app, count) in [("details", 1), ("ratings", 1), ("reviews", 3), ("productpage", 1)] {
        node.wait_ready(NAMESPACE, &json!({"app": app}), count)?;
    }
    let page = Mesh::wait("productpage", || productpage(node, None)).with_context(|| node.report())?;
    let caller = &page["reviews"]["caller"];
    ensure!(caller["identity"] == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "{page}");
    ensure!(page["details"]["author"].is_string(), "{page}");
    // What the kubelet's part is: users, files, variables.
    let (name, _) = pod(node, "reviews")?;
    let log = node.output(NAMESPACE, &name, "istio-proxy");
    ensure!(log.contains("Envoy") || log.contains("envoy"), "the proxy of {name} says: {log}");
    Ok(())
}

fn strict(node: &mut Node) -> anyhow::Result<()> {
    let (_, reviews) = pod(node, "reviews")?;
    let ask = Ask::get((reviews, PORT), "reviews:9080", "/reviews/0");
    let answer = Mesh::wait("plaintext before", || ask.from(&node.outside))?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    sample(node, "bookinfo/peer-authentication.yaml")?;
    Mesh::wait("plaintext refused", || match ask.from(&node.outside) {
        Ok(answer) => bail!("{}: {}", answer.status, answer.body),
        Err(_) => Ok(()),
    })?;
    let page = Mesh::wait("productpage", || productpage(node, None))?;
    ensure!(page["reviews"]["caller"]["identity"].is_string(), "{page}");
    Ok(())
}

fn route(node: &mut Node) -> anyhow::Result<()> {
    sample(node, "bookinfo/reviews-destination.yaml")?;
    sample(node, "bookinfo/reviews-route.yaml")?;
    Mesh::wait("the route", || {
        for (user, version) in [(None, "v1"), (Some("jason"), "v2")] {
            for _ in 0..6 {
                let page = productpage(node, user)?;
                ensure!(page["reviews"]["version"] == version, "{user:?} got {page}");
            }
        }
        Ok(())
    })
}

fn gateway(node: &mut Node) -> anyhow::Result<()> {
    let name = "istio-ingressgateway";
    let labels = json!({"app": name, "istio": "ingressgateway", "sidecar.istio.io/inject": "true"});
    node.cluster.account(NAMESPACE, name)?;
    node.cluster.apply(&[
        service(NAMESPACE, name, &[("http2", 80, 80)]),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": labels, "annotations": {"inject.istio.io/templates": "gateway"}},
                    "spec": {
                        "serviceAccountName": name,
                        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                        "containers": [{
                            "name": "istio-proxy", "image": "auto",
                            "securityContext": {
                                "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 1337, "runAsGroup": 1337,
                            },
                        }],
                    },
                },
            },
        }),
    ])?;
    sample(node, "kubernetes/bookinfo-gateway.yaml")?;
    node.wait_ready(NAMESPACE, &json!({"app": name}), 1)?;
    let address = node.service(NAMESPACE, name)?;
    let ask = Ask::get((address, 80), "bookinfo.example.com", "/productpage");
    Mesh::wait("a page through the gateway", || {
        let answer = ask.from(&node.outside)?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        ensure!(answer.json()?["reviews"]["version"] == "v1", "{}", answer.body);
        Ok(())
    })?;
    let other = Ask::get((address, 80), "bookinfo.example.com", "/other").from(&node.outside)?;
    ensure!(other.status == 404, "a path without a route: {}", other.status);
    Ok(())
}

// ---- Faults ----

/// Runs something while requests are made, none of which may fail.
fn under_load(node: &mut Node, what: impl FnOnce(&mut Node) -> anyhow::Result<()>) -> anyhow::Result<()> {
    Mesh::wait("productpage", || productpage(node, None))?;
    let (_, address) = pod(node, "productpage")?;
    let ask = Ask::get((address, PORT), "productpage:9080", "/productpage");
    let load = Load::start(&node.outside, ask, CLIENTS);
    let done = wait_good(&load, 50).and_then(|()| what(node)).and_then(|()| wait_good(&load, 50));
    let report: Report = load.stop()?;
    println!("{report}");
    done?;
    ensure!(report.failures() == 0, "{report}");
    Ok(())
}

/// Waits until that many more requests were answered.
fn wait_good(load: &Load, more: u64) -> anyhow::Result<()> {
    let goal = load.good() + more;
    Mesh::wait("answers", || {
        ensure!(load.good() >= goal, "{} of {goal} answers", load.good());
        Ok(())
    })
}

fn istiods(node: &Node) -> Vec<(String, Ipv4Addr)> {
    let pods = node.pods(SYSTEM, &json!({"app": "istiod"}));
    let of = |pod: &Value| {
        let address = pod["status"]["podIP"].as_str()?.parse().ok()?;
        Some((pod["metadata"]["name"].as_str()?.to_owned(), address))
    };
    pods.iter().filter_map(|pod| of(pod)).collect()
}

/// Waits until the Envoy of productpage has a cluster; says how long that took.
fn wait_cluster(node: &Node, name: &str) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let (pod, _) = pod(node, "productpage")?;
    let network = node.network(NAMESPACE, &pod)?;
    let clusters = Ask::get((Ipv4Addr::LOCALHOST, names::port::ENVOY_ADMIN), "envoy", "/clusters");
    let wanted = format!("outbound|80||{name}.{NAMESPACE}.svc.cluster.local::");
    Mesh::wait(&format!("cluster of {name}"), || {
        ensure!(clusters.from(&network)?.body.contains(&wanted), "it is not there");
        Ok(())
    })?;
    Ok(begin.elapsed())
}

fn new_service(node: &Node, name: &str) -> anyhow::Result<Duration> {
    node.cluster.apply(&[service(NAMESPACE, name, &[("http", 80, 80)])])?;
    wait_cluster(node, name)
}

fn kill_istiod(node: &mut Node) -> anyhow::Result<()> {
    under_load(node, |node| {
        let all = istiods(node);
        ensure!(all.len() == 2, "{all:?}");
        node.kill(SYSTEM, &all[0].0)?;
        // The other one serves meanwhile.
        let took = new_service(node, "while-one-is-dead")?;
        println!("a new service was at Envoy {took:?} after it was stored, one istiod dead");
        node.wait_ready(SYSTEM, &json!({"app": "istiod"}), 2)?;
        Ok(())
    })
}

fn kill_api(node: &mut Node) -> anyhow::Result<()> {
    let roots = cluster_roots(node)?;
    let token = node.cluster.token(NAMESPACE, "bookinfo-reviews", &["istio-ca"])?;
    under_load(node, |node| {
        forbidden(node)?;
        node.cluster.kill_api()?;
        let begin = Instant::now();
        let (_, istiod) = istiods(node).first().cloned().context("no istiod")?;
        while begin.elapsed() < AWAY {
            let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
            let csr = pki::csr::request(&key, &"spiffe://cluster.local/ns/default/sa/other".parse()?)?;
            let request = IstioCertificateRequest {
                csr,
                validity_duration: 3600,
                ..IstioCertificateRequest::default()
            };
            let answer = node.cluster.run(async {
                let channel = Channel::tls((istiod, 15012).into(), &roots).await?;
                anyhow::Ok(channel.certificate(Some(&token), "", request).await)
            })?;
            match answer {
                Err(status) => ensure!(status.code() == Code::Unavailable, "{status}"),
                Ok(_) => bail!("a certificate for a token that nobody looked at"),
            }
            netns::pause();
        }
        node.cluster.start_api()?;
        let took = new_service(node, "after-the-api-server")?;
        println!("a new service was at Envoy {took:?} after the API server took it");
        ensure!(took < SOON, "at Envoy after {took:?} only");
        Ok(())
    })
}

fn kill_etcd(node: &mut Node) -> anyhow::Result<()> {
    under_load(node, |node| {
        node.cluster.kill_etcd()?;
        let begin = Instant::now();
        while begin.elapsed() < AWAY / 2 {
            netns::pause();
        }
        node.cluster.start_etcd()?;
        node.cluster.wait_ready()?;
        new_service(node, "after-etcd")?;
        Ok(())
    })
}

// ---- Rights ----

/// What the API server refused somebody, by resource and verb.
fn forbidden(node: &Node) -> anyhow::Result<()> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let client = node.cluster.client();
    let page = node.cluster.run(async { client.request_text(request).await })?;
    let refused: BTreeMap<&str, &str> = page
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\""))
        .filter_map(|line| line.rsplit_once(' '))
        .collect();
    ensure!(page.contains("apiserver_request_total{"), "the API server counts nothing");
    ensure!(refused.is_empty(), "the chart's rules forbid what somebody did: {refused:#?}");
    Ok(())
}

fn least_privilege(node: &mut Node) -> anyhow::Result<()> {
    forbidden(node)?;
    for (name, _) in istiods(node) {
        let output = node.output(SYSTEM, &name, "discovery");
        ensure!(output.contains("istiod is listening"), "{name} says: {output}");
        let wrong: Vec<&str> = output
            .lines()
            .filter(|line| line.contains("forbidden") || line.contains("ClusterRole"))
            .collect();
        ensure!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
    Ok(())
}
