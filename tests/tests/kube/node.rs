//! A whole cluster: istiod as the chart installs it, pods that are injected
//! and run, and faults under load. The cases build on each other, on one node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use istio_tests::app::PORT;
use istio_tests::client::{Answer, Ask};
use istio_tests::grpc::Channel;
use istio_tests::kube::Node;
use istio_tests::load::{Load, Report};
use istio_tests::mesh::Mesh;
use istio_tests::{netns, program};
use libtest_mimic::Trial;
use pki::key::{Algorithm, PrivateKey};
use proto::envoy::config::core::v3::Node as EnvoyNode;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::istio::v1::auth::IstioCertificateRequest;
use runtime::tasks::Tasks;
use serde_json::{Value, json};
use tonic::Code;

use super::install::{self, SYSTEM};
use super::{commands, examples};

type Case = (&'static str, fn(&mut Node) -> anyhow::Result<()>);

/// In the order in which they must run; the first one makes what the others need.
const CASES: &[Case] = &[
    ("node_an_injected_bookinfo_speaks_mutual_tls", bookinfo),
    ("node_strict_refuses_plaintext", strict),
    ("node_a_route_takes_effect", route),
    ("node_a_gateway_serves_from_outside", gateway),
    ("node_istioctl_reaches_pods_through_the_api_server", istioctl),
    ("node_istioctl_does_what_its_help_shows", examples::run),
    ("node_one_of_two_istiods_is_killed_under_load", kill_istiod),
    ("node_one_of_two_istiods_hands_over_under_load", hand_over),
    ("node_the_api_server_is_away_under_load", kill_api),
    ("node_etcd_is_away_under_load", kill_etcd),
    ("node_istiod_does_nothing_that_its_roles_forbid", least_privilege),
    ("node_roles_allow_nothing_that_istiod_does_not_do", install::roles),
    ("node_istiod_runs_as_the_chart_says", install::confined),
];

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
    node.inside(|node| install::control_plane(node).with_context(|| node.report()))?;
    node.inside(|node| apply_bookinfo(node).with_context(|| node.report()))?;
    Ok(node)
}

// ---- Installation ----

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

/// The roots that istiod published.
fn cluster_roots(node: &Node) -> anyhow::Result<String> {
    Mesh::wait("roots of the mesh in a ConfigMap", || {
        let map =
            node.cluster.get("v1", "ConfigMap", NAMESPACE, "istio-ca-root-cert")?.context("no ConfigMap")?;
        Ok(map["data"]["root-cert.pem"].as_str().context("no roots in it")?.to_owned())
    })
}

fn apply_bookinfo(node: &mut Node) -> anyhow::Result<()> {
    let [_, _, label, bookinfo, _] = install::commands()?;
    install::run(node, &label)?;
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
    install::run(node, &bookinfo)
}

fn sample(node: &Node, file: &str) -> anyhow::Result<()> {
    let text = install::file(&format!("samples/{file}"))?;
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
    let [.., is_strict] = install::commands()?;
    install::run(node, &is_strict)?;
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

fn istioctl(node: &mut Node) -> anyhow::Result<()> {
    Mesh::wait("productpage", || productpage(node, None)).with_context(|| node.report())?;
    commands::reach(node)
}

fn gateway(node: &mut Node) -> anyhow::Result<()> {
    let name = "istio-ingressgateway";
    for command in install::commands_of_gateway()? {
        install::run(node, &command)?;
    }
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

/// Proxies beside those of the pods that are connected to the istiod that ends.
const PROXIES: usize = 20;

/// Connects to one istiod, tells when all are, and says when each was given up.
async fn proxies(
    istiod: Ipv4Addr,
    roots: &str,
    token: &str,
    connected: &std::sync::mpsc::Sender<()>,
) -> anyhow::Result<Vec<Instant>> {
    let mut streams = Vec::new();
    for number in 0..PROXIES {
        let channel = Channel::tls((istiod, 15012).into(), roots).await?;
        let id = format!("sidecar~10.0.0.1~other-{number}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local");
        let first = DeltaDiscoveryRequest {
            node: Some(EnvoyNode { id, ..EnvoyNode::default() }),
            type_url: names::TypeUrl::Cluster.as_str().into(),
            ..DeltaDiscoveryRequest::default()
        };
        let mut stream = channel.delta(Some(token), first).await?;
        stream.next().await?;
        streams.push(stream);
    }
    connected.send(())?;
    let tasks = Tasks::new();
    let wait = streams.into_iter().map(|mut stream| {
        tasks.spawn("proxy", async move {
            let error = loop {
                if let Err(error) = stream.next().await {
                    break error;
                }
            };
            let words = format!("{error:#}");
            ensure!(words.contains("istiod is stopping"), "{words}");
            Ok(Instant::now())
        })
    });
    let mut ends = Vec::new();
    for end in wait.collect::<Vec<_>>() {
        ends.push(end.await?.context("stopped")??);
    }
    Ok(ends)
}

fn hand_over(node: &mut Node) -> anyhow::Result<()> {
    let roots = cluster_roots(node)?;
    let token = node.cluster.token(NAMESPACE, "bookinfo-reviews", &["istio-ca"])?;
    under_load(node, |node| {
        let all = istiods(node);
        ensure!(all.len() == 2, "{all:?}");
        let (name, address) = all[0].clone();
        let (tell, connected) = std::sync::mpsc::channel();
        let client = std::thread::spawn(move || {
            let clients = || -> anyhow::Result<Vec<Instant>> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(proxies(address, &roots, &token, &tell))
            };
            clients()
        });
        connected.recv().context("the proxies do not connect")?;
        // As a rollout does it: SIGTERM, and time to end.
        node.cluster.evict(SYSTEM, &name)?;
        let took = new_service(node, "while-one-ends")?;
        println!("a new service was at Envoy {took:?} after it was stored, one istiod ending");
        let ends = client.join().map_err(|_| anyhow::anyhow!("the proxies panicked"))??;
        let first = ends.iter().min().context("no proxies")?;
        let spread = ends.iter().max().context("no proxies")?.duration_since(*first);
        println!("{PROXIES} proxies were given up within {spread:?}");
        // Random moments of two seconds: so many of them are never this close together.
        ensure!(spread > Duration::from_millis(700), "given up within {spread:?}");
        Mesh::wait("another istiod", || {
            let now = istiods(node);
            ensure!(now.len() == 2 && now.iter().all(|(other, _)| *other != name), "{now:?}");
            Ok(())
        })?;
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
