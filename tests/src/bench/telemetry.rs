//! What the module for Istio's metrics costs an Envoy: the same load through a sidecar with
//! it and through one without, turn about; memory; a long run.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::agent::resident;
use super::say;
use crate::client::Ask;
use crate::mesh::pod::{Pod, User};
use crate::mesh::{CLIENT, Hopeless, Mesh, Options};
use crate::netns::{self, processes, within};
use crate::process::Process;
use crate::program::Programs;

/// Port of the server behind a sidecar.
const PORT: u16 = 8000;
/// The pod with the module, and the one without.
const PODS: [&str; 2] = ["with", "without"];
/// Whom each calls over mutual TLS: with the module where the caller has it.
const PEERS: [&str; 2] = ["peer-with", "peer-without"];
/// What the last part of a pod's address and of its service's is counted from.
const FIRST: u8 = 21;
/// Connections of the load.
const CONNECTIONS: usize = 16;
/// Label sets for which memory is measured.
const SETS: usize = 1000;

/// How much is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Amount {
    /// Of telemetry: pairs of runs.
    #[arg(long, default_value_t = 21)]
    pairs: usize,
    /// Of telemetry: seconds of each run.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Of telemetry: requests of the long run.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Of telemetry: which sidecars of a call are compared, and nothing else.
    #[arg(long, value_enum, value_delimiter = ',')]
    sides: Option<Vec<Side>>,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    requests: u64,
    per_second: f64,
    /// Milliseconds in which 99 of 100 are answered.
    p99: f64,
    /// Microseconds of processor time that the sidecars took for a request.
    processor: f64,
}

/// Which sidecars of a call have the module or have it not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Side {
    /// That before the server; that behind the client has it.
    Server,
    /// That behind the client; that before the server has it.
    Client,
    /// Both.
    Both,
    /// That before the server, of a client outside of the mesh.
    Plaintext,
}

/// Measures everything.
///
/// # Errors
/// What could not be measured.
pub(super) fn run(amount: &Amount) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    programs.module()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("mesh.yaml"), objects())?;
    let off = vec![("ISTIO_TELEMETRY_MODULE".to_owned(), "off".to_owned())];
    let options = Options {
        name: "istio-bench".parse()?,
        objects: folder.path().to_owned(),
        agent_env: [PODS[1], PEERS[1]].map(|pod| (pod.to_owned(), off.clone())).into(),
    };
    let mesh = Mesh::start(&programs, &options, &mut |_| {})?;
    let _servers = servers(&mesh)?;
    mesh.wait_synced()?;
    say("| what | with | without | with ÷ without (median of pairs) | aim |\n|---|---|---|---|---|");
    if let Some(sides) = &amount.sides {
        return sides.iter().try_for_each(|side| pairs(&mesh, *side, amount));
    }
    for side in [Side::Server, Side::Client, Side::Both, Side::Plaintext] {
        pairs(&mesh, side, amount)?;
    }
    leak(&mesh, amount)?;
    sets(&mesh)
}

fn objects() -> String {
    let pod = |(number, name): (u8, &str)| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {name}, version: v1, service.istio.io/canonical-name: {name}, service.istio.io/canonical-revision: v1, security.istio.io/tlsMode: istio}}, annotations: {{sidecar.istio.io/peerMetadata: short}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: app}}]}}
status: {{phase: Running, podIP: 10.77.0.{0}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: 10.96.4.{0}, selector: {{app: {name}}}, ports: [{{name: http, port: {PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.77.0.{0}], targetRef: {{kind: Pod, name: {name}, namespace: default}}}}]
ports: [{{name: http, port: {PORT}}}]
---
",
            number + FIRST
        )
    };
    (0..).zip(PODS.into_iter().chain(PEERS)).map(pod).collect()
}

/// The server everywhere: an Envoy that answers itself, which is faster than any sidecar.
fn servers(mesh: &Mesh) -> anyhow::Result<Vec<Process>> {
    let config = format!(
        r#"{{"static_resources": {{"listeners": [{{"name": "server",
"address": {{"socket_address": {{"address": "0.0.0.0", "port_value": {PORT}}}}},
"filter_chains": [{{"filters": [{{"name": "http", "typed_config": {{
"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix": "server", "http_filters": [{{"name": "router", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}],
"route_config": {{"virtual_hosts": [{{"name": "all", "domains": ["*"], "routes": [{{"match": {{"prefix": "/"}},
"direct_response": {{"status": 200, "body": {{"inline_string": "{}"}}}}}}]}}]}}}}}}]}}]}}]}}}}"#,
        "x".repeat(1024)
    );
    let file = mesh.dir.join("server.json");
    fs::write(&file, config)?;
    let envoy = &mesh.programs().envoy;
    let mut servers = Vec::new();
    let pods =
        mesh.pods.iter().map(|pod| (pod.workload.name.as_str(), pod.command(User::App, envoy), &pod.network));
    let client = ("client", netns::command(&mesh.client, envoy), &mesh.client);
    for (name, mut command, network) in pods.chain([client]) {
        command.arg("-c").arg(&file).args(["-l", "error", "--concurrency", "1", "--disable-hot-restart"]);
        let mut server = Process::start(command, &mesh.dir.join("log").join(format!("{name}.server.log")))?;
        let ask = Ask::get((Ipv4Addr::LOCALHOST, PORT), "server", "/");
        Mesh::wait("a server", || {
            if let Some(status) = server.ended() {
                return Err(Hopeless(format!("{status}: {}", server.output())).into());
            }
            ensure!(ask.from(network)?.status.is_success(), "no answer");
            Ok(())
        })?;
        servers.push(server);
    }
    Ok(servers)
}

/// The sidecar of a pod: the Envoy that the agent has started.
fn envoy(pod: &Pod) -> anyhow::Result<i32> {
    let is_sidecar = |process: &i32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let user = user.and_then(|ids| ids.split_ascii_whitespace().next()?.parse::<u32>().ok());
        name.trim() == "envoy" && user == Some(names::port::PROXY_UID)
    };
    let mut found = processes(&pod.network).into_iter().map(nix::unistd::Pid::as_raw);
    found.find(is_sidecar).context("no Envoy")
}

/// Microseconds of processor time of all threads of some processes.
fn processor(processes: &[i32]) -> anyhow::Result<f64> {
    let mut nanoseconds = 0;
    for process in processes {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let told = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += told.split_ascii_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1000.0)
}

/// The load tool, through the sidecar of that one of [`PODS`].
fn load(mesh: &Mesh, which: usize, side: Side, seconds: u64) -> anyhow::Result<Run> {
    let (client, server) = match side {
        Side::Server => (Some(PEERS[0]), which),
        Side::Client => (Some(PODS[which]), PODS.len()),
        // The peers come after the pods.
        Side::Both => (Some(PODS[which]), PODS.len() + which),
        Side::Plaintext => (None, which),
    };
    // Services are called in the mesh; from outside of it, pods themselves.
    let (namespace, [a, b, c]) = match client {
        Some(client) => (&mesh.pod(client)?.network, [10, 96, 4]),
        None => (&mesh.client, [10, 77, 0]),
    };
    let url = format!("http://{}:{PORT}/", Ipv4Addr::new(a, b, c, FIRST + u8::try_from(server)?));
    let sidecars = match side {
        Side::Both => vec![envoy(mesh.pod(PODS[which])?)?, envoy(mesh.pod(PEERS[which])?)?],
        _ => vec![envoy(mesh.pod(PODS[which])?)?],
    };
    let before = processor(&sidecars)?;
    let mut command = netns::command(namespace, Path::new("wrk"));
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--latency", &url]);
    let output = command.output().context("wrk")?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && !said.contains("Non-2xx"), "wrk: {said}");
    let taken = processor(&sidecars)? - before;
    let line = |start: &str| {
        let mut lines = said.lines().filter_map(|line| line.trim().strip_prefix(start));
        lines.next().map(str::trim).map(str::to_owned).with_context(|| said.clone())
    };
    let requests = said.lines().find_map(|line| line.split_once(" requests in ")).context("requests")?;
    let requests: u64 = requests.0.trim().parse()?;
    Ok(Run {
        requests,
        per_second: line("Requests/sec:")?.parse()?,
        p99: millis(&line("99%")?)?,
        processor: taken / requests as f64,
    })
}

/// `1.50ms`, `900.00us` or `1.20s`, in milliseconds.
fn millis(text: &str) -> anyhow::Result<f64> {
    for (unit, factor) in [("ms", 1.0), ("us", 0.001), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    anyhow::bail!("{text}: no time")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs of both, turn about: each pair in the other order than the one before.
fn pairs(mesh: &Mesh, side: Side, amount: &Amount) -> anyhow::Result<()> {
    for which in 0..PODS.len() {
        load(mesh, which, side, 1)?;
    }
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for pair in 0..amount.pairs {
        let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let run = load(mesh, which, side, amount.seconds)?;
            if which == 0 { on.push(run) } else { off.push(run) }
        }
    }
    let what = match side {
        Side::Server => "server's sidecar",
        Side::Client => "client's sidecar",
        Side::Both => "both sidecars",
        Side::Plaintext => "server's sidecar, plaintext",
    };
    let row = |name: &str, unit: &str, of: &dyn Fn(&Run) -> f64, aim: &str| {
        let values = |runs: &[Run]| runs.iter().map(of).collect::<Vec<_>>();
        let ratios = values(&on).into_iter().zip(values(&off)).map(|(one, other)| one / other);
        let ratios: Vec<f64> = ratios.collect();
        let (least, most) = (
            ratios.iter().copied().fold(f64::NAN, f64::min),
            ratios.iter().copied().fold(f64::NAN, f64::max),
        );
        say(&format!(
            "| {what}: {name} | {:.2}{unit} | {:.2}{unit} | {:.3} ({least:.3} .. {most:.3}, {} pairs) | {aim} |",
            median(values(&on)),
            median(values(&off)),
            median(ratios),
            amount.pairs
        ));
    };
    row("requests/s", "", &|run| run.per_second, "≥ 0.95");
    row("p99", " ms", &|run| run.p99, "≤ 1.05");
    row("processor time for a request", " µs", &|run| run.processor, "");
    Ok(())
}

/// Memory of label sets: requests of many hosts, each a label set of its own; the same to an
/// Envoy without the module, which keeps nothing of them.
fn sets(mesh: &Mesh) -> anyhow::Result<()> {
    let mut grown = Vec::new();
    for name in PODS {
        let pod = mesh.pod(name)?;
        let process = envoy(pod)?;
        hosts(pod, 0..100)?;
        let before = resident(process)?;
        hosts(pod, 100..100 + SETS)?;
        grown.push(resident(process)? - before);
    }
    let page = mesh.pod(PODS[0])?.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
    let of_hosts = page.keys().filter(|(name, labels)| {
        name == "istio_requests_total"
            && labels.get("destination_service").is_some_and(|host| host.starts_with("host-"))
    });
    let count = of_hosts.count();
    ensure!(count == SETS + 100, "{count} label sets");
    let each = |megabytes: f64| megabytes * 1000.0 / SETS as f64;
    say(&format!("| memory of 1,000 label sets | {:.2} MB | {:.2} MB | | |", each(grown[0]), each(grown[1])));
    Ok(())
}

/// One request of each host, which nobody knows: it passes through.
fn hosts(pod: &Pod, which: std::ops::Range<usize>) -> anyhow::Result<()> {
    let address = SocketAddr::from((CLIENT, PORT));
    within(&pod.network, || async move {
        let mut sender = Ask::get(address, "first", "/").connect().await?;
        for number in which {
            let ask = Ask::get(address, &format!("host-{number}.example"), "/");
            let answer = ask.send_over(&mut sender).await?;
            ensure!(answer.status.is_success(), "{}", answer.status);
            sender.ready().await?;
        }
        Ok(())
    })
}

/// Many requests: memory before and after, of both.
fn leak(mesh: &Mesh, amount: &Amount) -> anyhow::Result<()> {
    let mut columns = Vec::new();
    for (which, name) in PODS.into_iter().enumerate() {
        let process = envoy(mesh.pod(name)?)?;
        let counted = |pod: &Pod| -> anyhow::Result<f64> {
            let page = pod.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
            Ok(page
                .iter()
                .filter(|((name, _), _)| name == "istio_requests_total")
                .map(|(_, value)| value)
                .sum())
        };
        let first = counted(mesh.pod(name)?)?;
        load(mesh, which, Side::Plaintext, 2)?;
        let (begin, mut done) = (resident(process)?, 0);
        let mut most = begin;
        while done < amount.requests {
            done += load(mesh, which, Side::Plaintext, 5)?.requests;
            most = most.max(resident(process)?);
        }
        let end = resident(process)?;
        columns.push(format!("{begin:.1} → {end:.1} MB (at most {most:.1}) in {done} requests"));
        if name == PODS[0] {
            // What wrk leaves open when its time is over is counted, too.
            let second = counted(mesh.pod(name)?)?;
            ensure!(second - first >= done as f64, "{} of {done} counted", second - first);
            ensure!(end - begin < 5.0, "it grew from {begin:.1} to {end:.1} MB");
        }
    }
    say(&format!("| resident memory in a long run | {} | {} | | < 5 MB more |", columns[0], columns[1]));
    Ok(())
}
