//! The agent: memory at rest, and how long its start takes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use names::TypeUrl;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DiscoveryRequest;

use super::{Times, say};
use crate::client::Ask;
use crate::grpc::Channel;
use crate::mesh::Mesh;
use crate::netns::{processes, within};

const RUNS: usize = 15;
/// Time between two looks; what is measured is later by half of it.
const LOOK: Duration = Duration::from_millis(1);

/// Resident memory of the processes of an idle mesh.
pub(super) fn memory(mesh: &Mesh) -> anyhow::Result<()> {
    let (mut agents, mut envoys) = (Vec::new(), Vec::new());
    for pod in &mesh.pods {
        for process in processes(&pod.network) {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            match name.trim() {
                "istio-agent" => agents.push(resident(process.as_raw())?),
                "envoy" => envoys.push(resident(process.as_raw())?),
                _ => {}
            }
        }
    }
    ensure!(agents.len() == mesh.pods.len(), "{} agents", agents.len());
    let istiod = mesh.istiod.process.as_ref().and_then(|process| process.pid()).context("istiod")?;
    row("agent, resident, idle", agents, "≤ 9 MB");
    row("Envoy beside it", envoys, "");
    row("istiod with 6 sidecars", vec![resident(i32::try_from(istiod)?)?], "");
    Ok(())
}

fn row(what: &str, mut megabytes: Vec<f64>, aim: &str) {
    megabytes.sort_by(f64::total_cmp);
    let at = |index: usize| megabytes.get(index).copied().unwrap_or(f64::NAN);
    let (min, max) = (at(0), at(megabytes.len().saturating_sub(1)));
    say(&format!("| {what} | {:.1} MB | {min:.1} .. {max:.1} MB | {aim} |", at(megabytes.len() / 2)));
}

/// Resident memory in megabytes (10^6).
pub(super) fn resident(process: i32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

/// From the agent's start to its first secret, and until the pod is ready.
pub(super) fn start(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (mut secrets, mut readies) = (Times::default(), Times::default());
    for _ in 0..RUNS {
        let pod = mesh.pod_mut("ratings-v1")?;
        let mut agent = pod.agent.take().context("an agent")?;
        agent.stop(Duration::from_secs(30))?;
        let socket = pod.dir.join(names::path::SDS_SOCKET);
        fs::remove_file(&socket).ok();
        let begin = Instant::now();
        pod.start_agent(&[])?;
        let network = pod.network.clone();
        let (secret, ready) = std::thread::scope(|scope| {
            let secret = scope.spawn(|| within(&network, || first_secret(&socket, begin)));
            let ready = scope.spawn(|| within(&network, || ready(begin)));
            (secret.join(), ready.join())
        });
        let (Ok(secret), Ok(ready)) = (secret, ready) else { anyhow::bail!("a measuring thread failed") };
        secrets.add(secret?);
        readies.add(ready?);
    }
    secrets.row("agent, exec to first secret", "");
    readies.row("agent, exec to ready (Envoy included)", "≤ 250 ms");
    Ok(())
}

async fn first_secret(socket: &Path, begin: Instant) -> anyhow::Result<Duration> {
    let channel = loop {
        ensure!(begin.elapsed() < Duration::from_secs(30), "no socket");
        match Channel::unix(socket).await {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let request = DiscoveryRequest {
        node: Some(Node { id: "bench".into(), ..Node::default() }),
        type_url: TypeUrl::Secret.as_str().to_owned(),
        resource_names: vec!["default".into()],
        ..DiscoveryRequest::default()
    };
    let response = channel.secrets(request).await?.next().await?;
    ensure!(response.resources.len() == 1, "no secret");
    Ok(begin.elapsed())
}

async fn ready(begin: Instant) -> anyhow::Result<Duration> {
    let probe = Ask::get((Ipv4Addr::LOCALHOST, names::port::ENVOY_HEALTH), "pod", "/healthz/ready");
    loop {
        ensure!(begin.elapsed() < Duration::from_secs(30), "not ready");
        if probe.send().await.is_ok_and(|answer| answer.status.is_success()) {
            return Ok(begin.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
}
