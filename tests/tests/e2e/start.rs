//! Agents that cannot start yet can still be ended, and say what is wrong.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istio_tests::netns::{Isolated, within};
use istio_tests::process::Process;
use istio_tests::program::Programs;
use nix::sys::signal::Signal;

type Case = (&'static str, fn() -> anyhow::Result<()>);

pub(crate) const CASES: &[Case] = &[
    ("a_signal_ends_an_agent_that_waits_for_an_address", without_address),
    ("what_is_wrong_is_told_without_waiting_for_an_address", wrong),
    ("a_signal_ends_an_agent_that_looks_up_a_name", unresolved),
];

/// Far less than a look-up or the wait for an address takes.
const LIMIT: Duration = Duration::from_secs(45);

/// An agent without Envoy in its own directory.
struct Agent {
    machine: Isolated,
    dir: tempfile::TempDir,
}

impl Agent {
    fn new(addresses: &[&str], files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let addresses: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
        let dir = tempfile::tempdir()?;
        let root = dir.path().join(names::path::ISTIOD_ROOT_CERT);
        std::fs::create_dir_all(root.parent().context("a folder")?)?;
        std::fs::write(root, "")?;
        Ok(Self { machine: Isolated::create(&addresses, files)?, dir })
    }

    fn command(&self, env: &[(&str, &str)]) -> anyhow::Result<Command> {
        let mut command = self.machine.command(&Programs::find()?.ours("istio-agent"));
        command.arg("proxy").current_dir(&self.dir).env("POD_NAME", "web-1").env("DISABLE_ENVOY", "true");
        command.envs(env.iter().copied());
        Ok(command)
    }

    fn start(&self, env: &[(&str, &str)]) -> anyhow::Result<Process> {
        Process::start(self.command(env)?, &self.dir.path().join("log"))
    }
}

fn ends_by_signal(mut process: Process) -> anyhow::Result<()> {
    process.signal(Signal::SIGTERM);
    let status = process.wait(LIMIT).with_context(|| process.output())?;
    ensure!(status.success(), "{status}: {}", process.output());
    Ok(())
}

fn without_address() -> anyhow::Result<()> {
    let agent = Agent::new(&[], &[])?;
    let process = agent.start(&[])?;
    Mesh::wait("the wait", || {
        ensure!(process.output().contains("no interface has an address yet"), "{}", process.output());
        Ok(())
    })?;
    ends_by_signal(process)
}

fn wrong() -> anyhow::Result<()> {
    let agent = Agent::new(&[], &[])?;
    let mut process = agent.start(&[("SECRET_TTL", "soon"), ("COMPLIANCE_POLICY", "pqc")])?;
    let status = process.wait(LIMIT)?;
    let text = process.output();
    ensure!(status.code() == Some(255), "{status}: {text}");
    for part in ["SECRET_TTL=\"soon\": expected", "COMPLIANCE_POLICY=\"pqc\": not supported yet"] {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    ensure!(!text.contains("no interface"), "{text}");
    Ok(())
}

fn unresolved() -> anyhow::Result<()> {
    let resolver = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";
    let agent =
        Agent::new(&["10.9.0.5/24"], &[("resolv.conf", resolver), ("nsswitch.conf", "hosts: dns\n")])?;
    // Takes questions and never answers.
    let server = within(agent.machine.name(), || async { Ok(UdpSocket::bind("127.0.0.1:53")?) })?;
    server.set_read_timeout(Some(LIMIT))?;
    let process =
        agent.start(&[("PROXY_CONFIG", "{discoveryAddress: 'istiod.nowhere:15012', statusPort: 0}")])?;
    server.recv(&mut [0; 512]).with_context(|| process.output())?;
    ends_by_signal(process)
}
