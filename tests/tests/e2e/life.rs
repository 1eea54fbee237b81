//! Ends and new beginnings of programs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istio_tests::mesh::pod::Pod;
use istio_tests::netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Case, load, more, none_failed, version, wait_version};

pub(crate) const CASES: &[Case] = &[
    ("istiod_is_stopped_and_started_and_no_request_fails", restart),
    ("a_change_made_while_istiod_was_away_arrives", missed_change),
    ("a_pod_that_starts_before_istiod_becomes_ready", early_pod),
    ("a_terminated_agent_drains_and_ends_well", terminated),
    ("a_killed_agent_leaves_no_envoy", killed),
    ("the_agent_ends_as_its_envoy_does", envoy_killed),
];

fn restart(mesh: &mut Mesh) -> anyhow::Result<()> {
    let load = load(mesh)?;
    mesh.istiod.stop()?;
    more(&load, 200)?;
    mesh.istiod.start()?;
    mesh.wait_synced()?;
    more(&load, 200)?;
    none_failed(load)
}

fn missed_change(mesh: &mut Mesh) -> anyhow::Result<()> {
    const ROUTE: &str = "reviews-route.yaml";
    let text = mesh.read(ROUTE)?;
    let load = load(mesh)?;
    mesh.istiod.stop()?;
    mesh.write(ROUTE, &text.replace("subset: v1", "subset: v3"))?;
    more(&load, 50)?;
    ensure!(version(mesh, None)? == "v1", "without istiod the last configuration stays");
    mesh.istiod.start()?;
    wait_version(mesh, None, "v3")?;
    mesh.write(ROUTE, &text)?;
    wait_version(mesh, None, "v1")?;
    none_failed(load)
}

/// Starts the agent of a pod anew, as its container would be.
fn start_agent(mesh: &mut Mesh, name: &str) -> anyhow::Result<()> {
    mesh.pod_mut(name)?.start_agent(&[])
}

fn early_pod(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut agent = mesh.pod_mut("ratings-v1")?.agent.take().context("an agent")?;
    agent.stop(Duration::from_secs(30))?;
    mesh.istiod.stop()?;
    start_agent(mesh, "ratings-v1")?;
    mesh.istiod.start()?;
    mesh.pod_mut("ratings-v1")?.wait_ready()?;
    mesh.wait_synced()
}

/// Processes of a pod besides its application.
fn proxies(pod: &Pod) -> Vec<Pid> {
    let app = pod.app.as_ref().and_then(|app| app.pid());
    let all = netns::processes(&pod.network).into_iter();
    all.filter(|pid| u32::try_from(pid.as_raw()).ok() != app).collect()
}

fn gone(pod: &Pod) -> anyhow::Result<()> {
    Mesh::wait("no proxy left", || {
        let left = proxies(pod);
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(())
    })
}

/// Starts the proxy again and checks that the mesh is whole.
fn revive(mesh: &mut Mesh) -> anyhow::Result<()> {
    start_agent(mesh, "ratings-v1")?;
    mesh.pod_mut("ratings-v1")?.wait_ready()?;
    mesh.wait_synced()?;
    wait_version(mesh, Some("jason"), "v2")
}

fn terminated(mesh: &mut Mesh) -> anyhow::Result<()> {
    let ratings = mesh.pod_mut("ratings-v1")?;
    ensure!(proxies(ratings).len() == 2, "agent and Envoy: {:?}", proxies(ratings));
    let mut agent = ratings.agent.take().context("an agent")?;
    let status = agent.stop(Duration::from_secs(30))?;
    ensure!(status.success(), "{status}");
    gone(ratings)?;
    revive(mesh)
}

fn killed(mesh: &mut Mesh) -> anyhow::Result<()> {
    let ratings = mesh.pod_mut("ratings-v1")?;
    let mut agent = ratings.agent.take().context("an agent")?;
    agent.signal(Signal::SIGKILL);
    agent.wait(Duration::from_secs(10))?;
    gone(ratings)?;
    revive(mesh)
}

fn envoy_killed(mesh: &mut Mesh) -> anyhow::Result<()> {
    let ratings = mesh.pod_mut("ratings-v1")?;
    let mut agent = ratings.agent.take().context("an agent")?;
    let pid = agent.pid().context("a process id")?;
    let envoy = proxies(ratings).into_iter().find(|other| u32::try_from(other.as_raw()).ok() != Some(pid));
    kill(envoy.context("an Envoy")?, Signal::SIGKILL)?;
    let status = agent.wait(Duration::from_secs(30))?;
    ensure!(status.code() == Some(128 + 9), "{status}");
    revive(mesh)
}
