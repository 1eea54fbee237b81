//! istio-init against the program that it calls.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

use super::{Times, ratio};
use crate::netns::Isolated;
use crate::program::Programs;

const RUNS: usize = 30;
const FLAGS: [&str; 12] =
    ["-p", "15001", "-z", "15006", "-u", "1337", "-i", "*", "-b", "*", "-d", "15090,15021,15020"];

/// First runs in fresh namespaces: with the default rules of an injected pod.
pub(super) fn run(programs: &Programs) -> anyhow::Result<()> {
    let init = programs.ours("istio-init");
    let mut dry = Command::new(&init);
    let output = dry.args(FLAGS).arg("-n").output().context("istio-init -n")?;
    let rules: String = String::from_utf8(output.stdout)?
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let (mut ours, mut bare, mut again) = (Times::default(), Times::default(), Times::default());
    // One round more than is counted: the first warms caches.
    for round in 0..=RUNS {
        let machine = machine()?;
        let first = time(&machine, &init, &FLAGS, "")?;
        let second = time(&machine, &init, &FLAGS, "")?;
        let restore = time(&self::machine()?, Path::new("iptables-nft-restore"), &["--noflush"], &rules)?;
        if round > 0 {
            ours.add(first);
            again.add(second);
            bare.add(restore);
        }
    }
    ours.row("istio-init, first run", "");
    again.row("istio-init, second run", "");
    bare.row("bare iptables-nft-restore of the same rules", "");
    ratio("istio-init ÷ bare restore", &ours, &bare, "≤ 2.5");
    Ok(())
}

fn machine() -> anyhow::Result<Isolated> {
    Isolated::create(&["10.9.0.5/24".to_owned()], &[])
}

/// Runs a program directly, without `ip netns exec`, which takes longer than
/// what is measured.
fn time(machine: &Isolated, program: &Path, args: &[&str], input: &str) -> anyhow::Result<Duration> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = fs::File::open(Path::new("/run/netns").join(machine.name()))?;
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            let mut child = command.spawn().with_context(|| program.display().to_string())?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read is done when it ends.
                stdin.write_all(input.as_bytes()).ok();
            }
            let status = child.wait()?;
            let elapsed = start.elapsed();
            ensure!(status.success(), "{}: {status}", program.display());
            Ok(elapsed)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
