//! `--run-validation` against the kernel. That something is told at once is
//! shown by a timeout that no test would live to see.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use istio_tests::netns::{Isolated, within};

use super::{Case, apply, machine, program, text};

pub(crate) const CASES: &[Case] = &[
    ("validation_passes_with_the_right_rules", right_rules),
    ("validation_says_that_rules_are_missing", no_rules),
    ("validation_waits_for_rules", late_rules),
    ("validation_finds_missing_ipv6_rules", no_ipv6_rules),
    ("validation_tells_the_wrong_port", wrong_port),
    ("validation_tells_at_once_that_ports_are_taken", taken),
    ("validation_ends_when_packets_are_dropped", dropped),
    ("validation_passes_a_pod_without_ipv4", without_ipv4),
    ("validation_probes_outbound_as_the_application", as_the_application),
    ("validation_uses_another_address_when_localhost_is_wide", wide_loopback),
];

/// The proxy.
const PROXY: &str = "1337";
/// An application.
const OTHER: &str = "1000";
/// Nothing may wait for it.
const NEVER: &[&str] = &["--probe-timeout", "1h"];
const SOON: &[&str] = &["--probe-timeout", "300ms"];
const ALL: &[&str] = &["-u", PROXY, "-i", "*", "-b", "*"];
const DUAL: &[&str] = &["-u", PROXY, "-i", "*", "-b", "*", "--dual-stack"];

/// The program where every user may run it: a checkout in a home directory is
/// not such a place. Removed when dropped.
struct Installed(PathBuf);

impl Installed {
    fn create(machine: &Isolated) -> anyhow::Result<Self> {
        let installed = Self(std::env::temp_dir().join(format!("{}-program", machine.name())));
        fs::create_dir_all(&installed.0)?;
        let (from, to) = (program()?, installed.program());
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
        Ok(installed)
    }

    fn program(&self) -> PathBuf {
        self.0.join("istio-init")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Validation as the istio-validation container runs it: any user, no
/// capabilities, nothing applied.
fn command(machine: &Isolated, installed: &Installed, user: &str, flags: &[&[&str]]) -> Command {
    let mut command = machine.command(Path::new("setpriv"));
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--inh-caps", "-all"]);
    command.args(["--bounding-set", "-all", "--"]).arg(installed.program());
    command.args(["--run-validation", "--skip-rule-apply"]).args(flags.concat());
    command.env("NODE_NAME", "node-of-the-test");
    command
}

fn validate(machine: &Isolated, user: &str, flags: &[&[&str]]) -> anyhow::Result<Output> {
    let installed = Installed::create(machine)?;
    command(machine, &installed, user, flags).output().context("istio-init")
}

fn passes(output: &Output) -> anyhow::Result<String> {
    let said = said(output);
    ensure!(output.status.success(), "{}: {said}", output.status);
    ensure!(said.contains("redirection validated"), "{said}");
    Ok(said)
}

fn fails(output: &Output, told: &[&str]) -> anyhow::Result<()> {
    let said = said(output);
    ensure!(output.status.code() == Some(126), "{}: {said}", output.status);
    let always = [
        "iptables validation failed; workload is not ready for Istio.",
        "cni.repair.deletePods=true",
        "node-of-the-test",
        "Rules in force: cannot be read by this user",
    ];
    for told in always.iter().chain(told) {
        ensure!(said.contains(told), "`{told}` is not in: {said}");
    }
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn only(address: &str) -> anyhow::Result<Isolated> {
    Isolated::create(&[address.to_owned()], &[])
}

fn v4() -> anyhow::Result<Isolated> {
    only("10.9.0.5/24")
}

fn right_rules() -> anyhow::Result<()> {
    const V4: &str = "IPv4 proxy to its own pod: 127.0.0.6:15002 came out at port 15006";
    const V6: &str = "IPv6 proxy to its own pod: [::6]:15002 came out at port 15006";
    let v6 = || only("fd00:9::5/64");
    let one = |machine: &Isolated, flags: &[&str], told: &[&str]| {
        apply(machine, flags)?;
        let said = passes(&validate(machine, PROXY, &[flags, NEVER])?)?;
        let is_right = [V4, V6].iter().all(|proven| said.contains(proven) == told.contains(proven));
        // The proxy's own traffic is exempt: its user cannot prove that others' is not.
        ensure!(is_right && said.contains("outbound: not probed"), "{flags:?}: {said}");
        anyhow::Ok(())
    };
    one(&v4()?, ALL, &[V4])?;
    one(&machine()?, ALL, &[V4])?;
    one(&machine()?, DUAL, &[V4, V6])?;
    one(&v6()?, ALL, &[V4, V6])?;
    for extra in [
        &["-m", "TPROXY"][..],
        &["--redirect-dns", "--capture-all-dns"],
        &["-m", "TPROXY", "--redirect-dns", "--capture-all-dns", "--drop-invalid"],
        &["--force-iptables-binary", "legacy"],
    ] {
        one(&machine()?, &[DUAL, extra].concat(), &[V4, V6])?;
    }
    // Neither direction is captured, but the proxy's calls to its own pod are.
    one(&v4()?, &["-u", PROXY], &[V4])?;

    let machine = v4()?;
    let flags = [ALL, &["-p", "16001", "-z", "16006"]].concat();
    apply(&machine, &flags)?;
    let output = validate(&machine, PROXY, &[&flags, NEVER, &["--iptables-probe-port", "16002"]])?;
    let said = passes(&output)?;
    ensure!(said.contains("127.0.0.6:16002 came out at port 16006"), "{said}");
    Ok(())
}

fn no_rules() -> anyhow::Result<()> {
    let output = validate(&machine()?, PROXY, &[DUAL, SOON])?;
    fails(
        &output,
        &[
            "IPv4 proxy to its own pod: 127.0.0.6:15002: connection refused: no rule redirects it to port 15006",
            "the address ::6 is not on the interface lo",
        ],
    )?;
    // An application that listens on the probe's port is not taken for Envoy.
    let machine = v4()?;
    let _application = listen(&machine, &["0.0.0.0:15002"])?;
    fails(&validate(&machine, PROXY, &[ALL, SOON])?, &["127.0.0.6:15002: accepted by another process"])
}

fn late_rules() -> anyhow::Result<()> {
    let machine = machine()?;
    let installed = Installed::create(&machine)?;
    let mut command = command(&machine, &installed, PROXY, &[DUAL, &["--probe-timeout", "60s"]]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("istio-init")?;
    let applied = apply(&machine, DUAL);
    let output = child.wait_with_output()?;
    applied?;
    passes(&output).map(drop)
}

fn no_ipv6_rules() -> anyhow::Result<()> {
    let machine = machine()?;
    apply(&machine, ALL)?;
    let told = ["127.0.0.6:15002 came out at port 15006", "IPv6 proxy to its own pod: [::6]:15002: "];
    fails(&validate(&machine, PROXY, &[DUAL, SOON])?, &told)?;

    text(&machine, "ip", &["addr", "add", "::6/128", "dev", "lo"])?;
    fails(&validate(&machine, PROXY, &[DUAL, SOON])?, &["[::6]:15002: connection refused"])
}

fn wrong_port() -> anyhow::Result<()> {
    let machine = v4()?;
    apply(&machine, ALL)?;
    // What Envoy sends would go to Envoy for ever.
    text(&machine, "iptables-nft", &["-t", "nat", "-I", "ISTIO_OUTPUT", "-j", "ISTIO_REDIRECT"])?;
    let told = ["accepted by the wrong port: it came out at 15001 instead of 15006"];
    fails(&validate(&machine, PROXY, &[ALL, SOON])?, &told)
}

/// Listeners of the pod.
fn listen(machine: &Isolated, addresses: &[&str]) -> anyhow::Result<Vec<TcpListener>> {
    within(machine.name(), || async {
        let listeners =
            addresses.iter().map(|address| TcpListener::bind(address).context(address.to_string()));
        listeners.collect()
    })
}

fn taken() -> anyhow::Result<()> {
    let machine = machine()?;
    apply(&machine, DUAL)?;
    let listeners = listen(&machine, &["127.0.0.1:15001", "127.0.0.1:15006"])?;
    let told = ["no listener available: another process listens on 127.0.0.1:15006", "[::6]:15002 came out"];
    fails(&validate(&machine, PROXY, &[DUAL, NEVER])?, &told)?;
    drop(listeners);

    let listeners = listen(&machine, &["[::1]:15006"])?;
    fails(&validate(&machine, PROXY, &[DUAL, NEVER])?, &["another process listens on [::1]:15006"])?;
    drop(listeners);

    // The probe of the proxy's user does not need that one.
    let _listeners = listen(&machine, &["127.0.0.1:15001"])?;
    passes(&validate(&machine, PROXY, &[DUAL, NEVER])?).map(drop)
}

fn dropped() -> anyhow::Result<()> {
    let machine = v4()?;
    apply(&machine, ALL)?;
    text(&machine, "iptables-nft", &["-A", "INPUT", "-p", "tcp", "-j", "DROP"])?;
    fails(&validate(&machine, PROXY, &[ALL, SOON])?, &["127.0.0.6:15002: no answer for"])
}

fn without_ipv4() -> anyhow::Result<()> {
    let machine = only("fd00:9::5/64")?;
    apply(&machine, ALL)?;
    text(&machine, "iptables-nft", &["-t", "nat", "-F"])?;
    let said = passes(&validate(&machine, PROXY, &[ALL, NEVER])?)?;
    ensure!(said.contains("the pod has no IPv4 address"), "{said}");
    ensure!(said.contains("[::6]:15002 came out at port 15006"), "{said}");
    Ok(())
}

fn as_the_application() -> anyhow::Result<()> {
    let machine = machine()?;
    text(&machine, "ip", &["route", "add", "default", "via", "10.9.0.1"])?;
    text(&machine, "ip", &["-6", "route", "add", "default", "via", "fd00:9::1"])?;
    apply(&machine, DUAL)?;
    // As the original: who is not the proxy cannot validate, and here is told why.
    let told = [
        "127.0.0.6:15002 was not dialled, since `-o lo -m owner ! --uid-owner 1337 -j RETURN` exempts it",
        "IPv4 outbound: 192.0.2.1:15002 came out at port 15001",
        "IPv6 outbound: [2001:db8::1]:15002 came out at port 15001",
    ];
    fails(&validate(&machine, OTHER, &[DUAL, NEVER])?, &told)?;

    // Its calls to loopback addresses are captured: then it can.
    let flags = ["-u", PROXY, "-i", "127.0.0.0/8,10.0.0.0/8", "-b", "*"];
    apply(&machine, &flags)?;
    let said = passes(&validate(&machine, OTHER, &[&flags, NEVER])?)?;
    ensure!(said.contains("127.0.0.6:15002 came out at port 15001"), "{said}");
    ensure!(said.contains("IPv4 outbound: 10.0.0.1:15002 came out at port 15001"), "{said}");
    Ok(())
}

fn wide_loopback() -> anyhow::Result<()> {
    let machine = v4()?;
    let set = |mut command: Command| {
        command.env("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/8").output().context("istio-init")
    };
    let mut applying = machine.command(&program()?);
    applying.args(ALL);
    let applied = set(applying)?;
    ensure!(applied.status.success(), "{}", said(&applied));
    let installed = Installed::create(&machine)?;
    let said = passes(&set(command(&machine, &installed, PROXY, &[ALL, NEVER]))?)?;
    ensure!(said.contains("10.9.0.5:15002 came out at port 15006"), "{said}");
    Ok(())
}
