//! The demo leaves nothing behind, whenever it is interrupted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use istio_tests::mesh::Mesh;
use istio_tests::netns;
use istio_tests::process::Process;
use istio_tests::program::Programs;
use nix::sys::signal::Signal;

type Case = (&'static str, fn() -> anyhow::Result<()>);

pub(crate) const CASES: &[Case] = &[
    ("an_interrupted_demo_leaves_nothing_behind", interrupted),
    ("a_running_demo_is_left_alone_by_a_second_one_and_ended_by_stop", second),
    ("a_kept_demo_is_removed_by_stop", kept),
    ("a_demo_has_a_plain_name", names),
];

const NAME: &str = "istio-e2e-demo";
const DIR: &str = "/var/lib/istio-e2e-demo";

fn demo(programs: &Programs, flags: &[&str]) -> Command {
    let mut command = Command::new(&programs.harness);
    command.args(["demo", "--name", NAME, "--objects"]).arg(super::objects()).args(flags);
    command
}

fn nothing_left() -> anyhow::Result<()> {
    let namespaces = netns::list(NAME);
    ensure!(namespaces.is_empty(), "{namespaces:?} are left");
    ensure!(!Path::new(DIR).exists(), "{DIR} is left");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(NAME), "a mount is left: {mounts}");
    Ok(())
}

fn interrupted() -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let log = std::env::temp_dir().join("istio-e2e-demo.log");
    // While namespaces are made, while proxies start, while load runs.
    for (signal, wait) in
        [(Signal::SIGINT, 60), (Signal::SIGTERM, 250), (Signal::SIGINT, 700), (Signal::SIGHUP, 4000)]
    {
        let mut process = Process::start(demo(&programs, &[]), &log)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(wait) {
            netns::pause();
        }
        process.signal(signal);
        let status = process.wait(Duration::from_secs(30))?;
        ensure!(
            status.code() == Some(128 + signal as i32),
            "{signal} after {wait} ms: {status}: {}",
            process.output()
        );
        nothing_left()?;
    }
    std::fs::remove_file(&log)?;
    Ok(())
}

fn kept() -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let output = demo(&programs, &["--keep"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for told in [
        "20 × reviews v2",
        "sa/bookinfo-productpage",
        "refused",
        "reviews v3",
        " 0 failed",
        "SYNCED",
        "demo stop",
    ] {
        ensure!(text.contains(told), "{told:?} is not in {text}");
    }
    let proxies = netns::list(NAME).iter().map(|name| netns::processes(name).len()).sum::<usize>();
    ensure!(proxies == 19, "six pods of three and istiod should run, not {proxies}");
    let again = demo(&programs, &[]).output()?;
    let text = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && text.contains("was kept and still runs"), "{text}");
    // A namespace of another mesh, whose name begins alike.
    let other = format!("{NAME}-2-client");
    ip(&["add", &other])?;
    let stop = demo(&programs, &["stop"]).output();
    let is_there = netns::exists(&other);
    ip(&["delete", &other])?;
    let stop = stop?;
    ensure!(stop.status.success(), "{}", String::from_utf8_lossy(&stop.stderr));
    ensure!(is_there, "{other} was removed too");
    Mesh::wait("nothing left", nothing_left)
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").arg("netns").args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn second() -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let log = std::env::temp_dir().join("istio-e2e-demo.log");
    let mut first = Process::start(demo(&programs, &[]), &log)?;
    let running = || {
        ensure!(first.output().contains("istiod is ready"), "{}", first.output());
        Ok(())
    };
    Mesh::wait("the first demo", running)?;
    let output = demo(&programs, &[]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let pid = first.pid().unwrap_or_default();
    ensure!(
        text.contains(&format!("{NAME} is running (process {pid}); stop it: scripts/demo stop")),
        "{text}"
    );
    ensure!(first.ended().is_none() && !netns::list(NAME).is_empty(), "the first one goes on");
    let stop = demo(&programs, &["stop"]).output()?;
    ensure!(stop.status.success(), "{}", String::from_utf8_lossy(&stop.stderr));
    let status = first.wait(Duration::from_secs(30))?;
    ensure!(status.code() == Some(128 + Signal::SIGTERM as i32), "{status}: {}", first.output());
    std::fs::remove_file(&log)?;
    nothing_left()
}

fn names() -> anyhow::Result<()> {
    let harness = Programs::find()?.harness;
    for name in ["../../tmp", "", "a/b", "dpkg/../x", "-", "Demo"] {
        for action in [None, Some("stop")] {
            let mut command = Command::new(&harness);
            let output = command.arg("demo").arg(format!("--name={name}")).args(action).output()?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(2) && text.contains("expected 1 to 40"), "{name:?}: {text}");
        }
    }
    // Somebody else's directory.
    let output = Command::new(&harness).args(["demo", "stop", "--name", "dpkg"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains("is not the directory of a mesh"), "{text}");
    ensure!(Path::new("/var/lib/dpkg").exists(), "it is gone");
    Ok(())
}
