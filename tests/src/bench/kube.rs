//! istiod beside a cluster of several thousand objects.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::say;
use crate::kube::{Cluster, Istiod, crd};
use crate::netns::pause;
use crate::program::Programs;

/// Services, each with a slice of endpoints and as many pods.
const SERVICES: usize = 2000;
/// Pods of each.
const PODS: usize = 2;
/// Namespaces that they are in.
const NAMESPACES: usize = 20;
/// Objects of Istio's kinds, half routes and half rules.
const RULES: usize = 1000;
/// The sidecar that asks.
const NODE: &str = "sidecar~10.128.0.1~p-0-0.bench-0~bench-0.svc.cluster.local";
/// Runs of what is measured.
const RUNS: usize = 3;

/// Measures how long istiod needs for all of a cluster, and what it takes.
pub(super) fn run(programs: &Programs) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.apply(&crd::definitions()?)?;
    cluster.wait_defined()?;
    let begin = Instant::now();
    let objects = fill(&cluster)?;
    say(&format!("| objects made in the API server ({objects}) | {:.1?} | | |", begin.elapsed()));
    let (bare, size) = list(&cluster)?;
    say(&format!(
        "| the same listed by a client that only reads the bytes | {bare:.2?} | {} MB | |",
        size >> 20
    ));
    for _ in 0..RUNS {
        let begin = Instant::now();
        let mut istiod = Istiod::of(&cluster, &programs.ours("istiod"), &[])?;
        istiod.wait_ready()?;
        let ready = begin.elapsed();
        let clusters = istiod.clusters(NODE)?.1.len();
        ensure!(clusters > SERVICES, "{clusters} clusters");
        let (resident, peak, cpu) = usage(istiod.process.pid().context("istiod ended")?)?;
        say(&format!(
            "| start until ready, {objects} objects | {ready:.2?} | CPU {cpu:.2?} | resident {resident} MB, peak {peak} MB |"
        ));
        say(&format!(
            "| start / bare list, CPU / bare list, peak / bytes of the list | {:.2} × | {:.2} × | {:.2} × |",
            ready.as_secs_f64() / bare.as_secs_f64(),
            cpu.as_secs_f64() / bare.as_secs_f64(),
            peak as f64 / (size >> 20).max(1) as f64,
        ));
        let name = "one-more";
        let wanted = format!("outbound|80||{name}.bench-0.svc.cluster.local");
        let begin = Instant::now();
        cluster.apply(&[service(0, name)])?;
        istiod.wait_clusters(NODE, "one more service", |names| names.contains(&wanted))?;
        say(&format!("| a new service until a sidecar can get it | {:.0?} | | |", begin.elapsed()));
        cluster.delete("v1", "Service", "bench-0", name)?;
        istiod.wait_clusters(NODE, "one service less", |names| !names.contains(&wanted))?;
    }
    Ok(())
}

/// Lists what the bench has made, page by page, and looks at nothing: the least
/// that a start can take. The time, and the bytes.
fn list(cluster: &Cluster) -> anyhow::Result<(Duration, usize)> {
    let client = cluster.client();
    let begin = Instant::now();
    let mut size = 0;
    for path in [
        "/api/v1/services",
        "/api/v1/pods",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/networking.istio.io/v1/virtualservices",
        "/apis/networking.istio.io/v1/destinationrules",
    ] {
        let mut token = String::new();
        loop {
            let uri = format!("{path}?limit=500&continue={token}");
            let request = http::Request::get(uri).body(Vec::new())?;
            let page = cluster.run(async { client.request_text(request).await })?;
            size += page.len();
            // The only field of the page that matters stands at its beginning.
            let (_, rest) = page.split_once("\"continue\":\"").unwrap_or_default();
            token = rest.split('"').next().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
    }
    Ok((begin.elapsed(), size))
}

fn fill(cluster: &Cluster) -> anyhow::Result<usize> {
    for number in 0..NAMESPACES {
        cluster.namespace(&format!("bench-{number}"), &[])?;
    }
    let mut objects = Vec::new();
    for number in 0..SERVICES {
        objects.push(service(number, &format!("s-{number}")));
        let pods: Vec<Value> = (0..PODS).map(|index| pod(number, index)).collect();
        objects.push(slice(number, &pods));
        objects.extend(pods);
    }
    for number in 0..RULES / 2 {
        let (namespace, host) = (format!("bench-{}", number % NAMESPACES), format!("s-{number}"));
        let meta = |name: &str| json!({"name": format!("{name}-{number}"), "namespace": namespace});
        objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta("route"),
            "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}], "timeout": "5s"}]},
        }));
        objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta("rule"),
            "spec": {"host": host, "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 100}}}},
        }));
    }
    let count = objects.len();
    // Several at a time: each waits for etcd.
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            objects.chunks(count.div_ceil(4)).map(|part| scope.spawn(move || cluster.apply(part))).collect();
        parts.into_iter().try_for_each(|part| part.join().map_err(|_| anyhow::anyhow!("panic"))?)
    })?;
    Ok(count)
}

fn meta(number: usize, name: &str, labels: &Value) -> Value {
    json!({"name": name, "namespace": format!("bench-{}", number % NAMESPACES), "labels": labels})
}

fn service(number: usize, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(number, name, &json!({"app": name})),
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn address(number: usize, index: usize) -> String {
    let at = number * PODS + index;
    format!("10.128.{}.{}", at / 250, at % 250 + 1)
}

fn pod(number: usize, index: usize) -> Value {
    let (app, address) = (format!("s-{number}"), address(number, index));
    // As large as a pod is that was injected.
    let variables: Vec<Value> = (0..40)
        .map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "a value of some length"}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": meta(number, &format!("p-{number}-{index}"), &json!({"app": app, "version": "v1"})),
        "spec": {"nodeName": "node", "containers": [
            {"name": "app", "image": "example.com/app:1", "env": variables, "ports": [{"containerPort": 8080}]},
            {"name": "istio-proxy", "image": "example.com/proxy:1", "env": variables},
        ]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn slice(number: usize, pods: &[Value]) -> Value {
    let name = format!("s-{number}");
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let target = json!({"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]});
            json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}, "targetRef": target})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": meta(number, &format!("{name}-1"), &json!({"kubernetes.io/service-name": name})),
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// Resident memory and its peak in MB, and CPU time, of a process.
fn usage(pid: u32) -> anyhow::Result<(u64, u64, Duration)> {
    // What is freed late is not counted: it has a moment.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        pause();
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name)).with_context(|| name.to_owned())?;
        Ok(line.split_whitespace().nth(1).context("value")?.parse::<u64>()? / 1024)
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).context("stat")?.parse::<u64>()? + fields.get(12).context("stat")?.parse::<u64>()?;
    Ok((field("VmRSS:")?, field("VmHWM:")?, Duration::from_millis(ticks * 10)))
}
