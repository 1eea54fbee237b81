//! istio-init against the program that it calls.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

use super::{Times, ratio, say};
use crate::netns::Isolated;
use crate::program::Programs;

const RUNS: usize = 30;
const FLAGS: [&str; 12] =
    ["-p", "15001", "-z", "15006", "-u", "1337", "-i", "*", "-b", "*", "-d", "15090,15021,15020"];
const NATIVE: &[&str] = &["--native-nftables"];
const FULL: &[&str] = &["-m", "TPROXY", "--redirect-dns", "--capture-all-dns", "--drop-invalid"];

/// First runs in fresh namespaces: with the default rules of an injected pod.
pub(super) fn run(programs: &Programs) -> anyhow::Result<()> {
    compare(programs, "istio-init", &[], "≤ 2.5").map(drop)
}

/// Every mode, and what it takes of memory.
pub(super) fn all(programs: &Programs) -> anyhow::Result<()> {
    let default = compare(programs, "istio-init", &[], "≤ 2.5")?;
    let native = compare(programs, "istio-init --native-nftables", NATIVE, "≤ 1.0")?;
    compare(programs, "istio-init -m TPROXY with DNS", FULL, "")?;
    compare(programs, "the same with --native-nftables", &[FULL, NATIVE].concat(), "")?;
    ratio("native ÷ iptables mode", &native, &default, "");
    for (what, more) in [("istio-init", &[][..]), ("istio-init --native-nftables", NATIVE)] {
        say(&format!("| {what}, resident at most | {:.1} MiB | | ≤ 6 MiB |", resident(programs, more)?));
    }
    let size = fs::metadata(programs.ours("istio-init"))?.len();
    say(&format!("| istio-init, size of the program | {:.2} MB | | |", size as f64 / 1e6));
    Ok(())
}

/// A first and a second run against the bare restore of the same rules, turn
/// about.
fn compare(programs: &Programs, what: &str, more: &[&str], aim: &str) -> anyhow::Result<Times> {
    let init = programs.ours("istio-init");
    let flags = [&FLAGS[..], more].concat();
    // iptables-restore is given what iptables mode would write.
    let in_iptables_mode: Vec<&str> = flags.iter().copied().filter(|flag| !NATIVE.contains(flag)).collect();
    let mut dry = Command::new(&init);
    let output = dry.args(in_iptables_mode).arg("-n").output().context("istio-init -n")?;
    let rules: String = String::from_utf8(output.stdout)?
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let (mut ours, mut bare, mut again) = (Times::default(), Times::default(), Times::default());
    // One round more than is counted: the first warms caches.
    for round in 0..=RUNS {
        let machine = machine()?;
        let first = time(&machine, &init, &flags, "")?;
        let second = time(&machine, &init, &flags, "")?;
        let restore = time(&self::machine()?, Path::new("iptables-nft-restore"), &["--noflush"], &rules)?;
        if round > 0 {
            ours.add(first);
            again.add(second);
            bare.add(restore);
        }
    }
    ours.row(&format!("{what}, first run"), "");
    again.row(&format!("{what}, second run"), "");
    bare.row("bare iptables-nft-restore of the same rules", "");
    ratio(&format!("{what} ÷ bare restore"), &ours, &bare, aim);
    ratio(&format!("{what}, second run ÷ first run"), &again, &ours, "≤ 1.0");
    Ok(ours)
}

/// The most memory that it held, in MiB. A small program asks the kernel: what
/// is told of a child counts its parent's pages before it became another
/// program, so the parent must be small.
fn resident(programs: &Programs, more: &[&str]) -> anyhow::Result<f64> {
    let machine = machine()?;
    let output = machine
        .command(Path::new("/usr/bin/time"))
        .args(["-f", "%M"])
        .arg(programs.ours("istio-init"))
        .args(FLAGS)
        .args(more)
        .output()
        .context("time (package time)")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    let kib: f64 = told.lines().last().unwrap_or_default().trim().parse().context(told.into_owned())?;
    Ok(kib / 1024.0)
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
