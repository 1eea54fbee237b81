//! istio-init against the kernel, in network namespaces (root).

#[path = "netns/escapes.rs"]
mod escapes;
#[path = "netns/packets.rs"]
mod packets;
#[path = "netns/privileges.rs"]
mod privileges;
#[path = "netns/small.rs"]
mod small;
#[path = "netns/traced.rs"]
mod traced;
#[path = "netns/validation.rs"]
mod validation;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anyhow::{Context as _, ensure};
use istio_tests::netns::Isolated;
use istio_tests::oracle::init;
use istio_tests::program::can_run;
use libtest_mimic::{Arguments, Trial};

type Case = (&'static str, fn() -> anyhow::Result<()>);

const CASES: &[Case] = &[
    ("a_second_run_changes_nothing", idempotent),
    ("a_run_with_other_flags_converges", converges),
    ("clean_up_removes_ours_and_nothing_else", clean_up),
    ("ipv4_is_rolled_back_when_ipv6_fails", roll_back),
    ("rules_stay_on_the_back_end_that_has_them", back_end),
    ("wrong_flags_change_nothing", refused),
];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let is_possible = match can_run() {
        Ok(is_possible) => is_possible,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if !is_possible {
        eprintln!("network namespaces need root: all cases are left out; use scripts/test");
    }
    let recorded = match init::cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oracle/init")) {
        Ok(recorded) => recorded,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let told = |result: anyhow::Result<()>| result.map_err(|error| format!("{error:#}").into());
    let mut trials: Vec<Trial> = CASES
        .iter()
        .chain(packets::CASES)
        .chain(privileges::CASES)
        .chain(traced::CASES)
        .chain(escapes::CASES)
        .chain(small::CASES)
        .chain(validation::CASES)
        .map(|(name, case)| Trial::test(*name, move || told(case())).with_ignored_flag(!is_possible))
        .collect();
    for case in recorded {
        let name = format!("recorded/{}", case.name);
        let trial =
            Trial::test(name, move || told(program().and_then(|program| case.compare(&program).map(drop))));
        trials.push(trial.with_ignored_flag(!is_possible));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// istio-init, two folders above this program.
fn program() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.ancestors().nth(2).context("a target folder")?.join("istio-init");
    ensure!(program.is_file(), "istio-init is not built; run: cargo build --workspace");
    Ok(program)
}

fn machine() -> anyhow::Result<Isolated> {
    Isolated::create(&["10.9.0.5/24".into(), "fd00:9::5/64".into()], &[])
}

fn run(machine: &Isolated, flags: &[&str]) -> anyhow::Result<Output> {
    machine.command(&program()?).args(flags).output().context("istio-init")
}

fn apply(machine: &Isolated, flags: &[&str]) -> anyhow::Result<String> {
    let output = run(machine, flags)?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{flags:?}: {}: {said}", output.status);
    Ok(said)
}

fn text(machine: &Isolated, program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = machine.command(Path::new(program)).args(args).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What an injected pod passes.
const DEFAULT: &[&str] = &[
    "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d",
    "15090",
];

/// Configurations that differ in every part.
const CONFIGURATIONS: &[&[&str]] = &[
    DEFAULT,
    &[
        "-i",
        "10.0.0.0/8,fd00::/8",
        "-x",
        "10.1.0.0/16",
        "-b",
        "80,8000:8010",
        "-u",
        "1000,1001",
        "--dual-stack",
    ],
    &["-i", "*", "-b", "*", "-q", "443", "-o", "22", "--redirect-dns", "--capture-all-dns", "--dual-stack"],
    &["-c", "eth1,eth2", "-b", "*", "--drop-invalid", "-p", "16001", "-z", "16006"],
    &["-k", "eth3", "-i", "10.0.0.0/8"],
    &[],
];

fn idempotent() -> anyhow::Result<()> {
    for variant in ["nft", "legacy"] {
        for flags in CONFIGURATIONS {
            let machine = machine()?;
            let flags = [*flags, &["--force-iptables-binary", variant]].concat();
            apply(&machine, &flags)?;
            // Handles tell a rule from an equal one that was written later.
            let handles = |machine| text(machine, "nft", &["-s", "-a", "list", "ruleset"]);
            let (before, state) = (handles(&machine)?, init::state(&machine)?);
            let said = apply(&machine, &flags)?;
            ensure!(said.contains("nothing changed"), "{said}");
            ensure!(handles(&machine)? == before, "{flags:?}: rules were written again");
            ensure!(init::state(&machine)? == state, "{flags:?}");
        }
    }
    Ok(())
}

fn converges() -> anyhow::Result<()> {
    for variant in ["nft", "legacy"] {
        let variant = &["--force-iptables-binary", variant][..];
        let fresh = CONFIGURATIONS.iter().map(|flags| {
            let machine = machine()?;
            apply(&machine, &[*flags, variant].concat())?;
            init::state(&machine)
        });
        let fresh = fresh.collect::<anyhow::Result<Vec<_>>>()?;
        for first in CONFIGURATIONS {
            for (second, wanted) in CONFIGURATIONS.iter().zip(&fresh) {
                let machine = machine()?;
                apply(&machine, &[*first, variant].concat())?;
                apply(&machine, &[*second, variant].concat())?;
                let state = init::state(&machine)?;
                ensure!(state == *wanted, "{first:?} then {second:?}:\n{state:#}\nwanted:\n{wanted:#}");
            }
        }
    }
    Ok(())
}

fn clean_up() -> anyhow::Result<()> {
    for variant in ["nft", "legacy"] {
        let machine = machine()?;
        let iptables = format!("iptables-{variant}");
        for foreign in [
            &["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "9999", "-j", "RETURN"][..],
            // Without the protocol it would look like an exclusion of ours (`-c`).
            &["-t", "nat", "-A", "PREROUTING", "-i", "eth7", "-p", "udp", "-j", "RETURN"],
            &["-t", "nat", "-N", "MINE"],
            &["-t", "filter", "-A", "INPUT", "-p", "tcp", "--dport", "9999", "-j", "ACCEPT"],
        ] {
            text(&machine, &iptables, foreign)?;
        }
        let before = init::state(&machine)?;
        for flags in CONFIGURATIONS.iter().filter(|flags| !flags.contains(&"-k")) {
            apply(&machine, &[*flags, &["--force-iptables-binary", variant]].concat())?;
        }
        ensure!(init::state(&machine)? != before, "rules were applied");
        // With other flags than those of any run before.
        apply(&machine, &["--cleanup-only", "--force-iptables-binary", variant])?;
        let after = init::state(&machine)?;
        ensure!(after == before, "{after:#}\nwanted:\n{before:#}");
    }
    Ok(())
}

/// A folder of programs, of which one fails.
fn broken(dir: &Path, name: &str) -> anyhow::Result<()> {
    for program in
        ["iptables-nft-save", "iptables-nft-restore", "ip6tables-nft-save", "ip6tables-nft-restore"]
    {
        let place = dir.join(program);
        if program == name {
            fs::write(&place, "#!/bin/sh\necho 'no IPv6 here' >&2\nexit 3\n")?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        } else {
            symlink(Path::new("/usr/sbin").join(program), place)?;
        }
    }
    Ok(())
}

fn roll_back() -> anyhow::Result<()> {
    let machine = machine()?;
    apply(&machine, DEFAULT)?;
    let before = init::state(&machine)?;
    let dir = std::env::temp_dir().join(machine.name());
    fs::create_dir(&dir)?;
    broken(&dir, "ip6tables-nft-restore")?;
    let mut command: Command = machine.command(&program()?);
    let output = command.args(["-i", "*", "-b", "80", "--dual-stack", "--redirect-dns", "--capture-all-dns"]);
    let output = output.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin", dir.display())).output();
    fs::remove_dir_all(&dir)?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.contains("no IPv6 here") && said.contains("that were there before"), "{said}");
    let after = init::state(&machine)?;
    ensure!(after == before, "{after:#}\nwanted:\n{before:#}");
    Ok(())
}

fn back_end() -> anyhow::Result<()> {
    let said = apply(&machine()?, DEFAULT)?;
    ensure!(said.contains("back_end=iptables-nft"), "{said}");
    let machine = machine()?;
    ensure!(text(&machine, "cat", &["/proc/self/net/ip_tables_names"])?.is_empty());
    apply(&machine, DEFAULT)?;
    let legacy = text(&machine, "cat", &["/proc/self/net/ip_tables_names"])?;
    ensure!(legacy.is_empty(), "looking made legacy tables: {legacy}");
    apply(&machine, &["--cleanup-only"])?;

    apply(&machine, &[DEFAULT, &["--force-iptables-binary", "legacy"]].concat())?;
    let said = apply(&machine, DEFAULT)?;
    ensure!(said.contains("back_end=iptables-legacy") && said.contains("nothing changed"), "{said}");
    Ok(())
}

fn refused() -> anyhow::Result<()> {
    let machine = machine()?;
    apply(&machine, DEFAULT)?;
    let before = init::state(&machine)?;
    for (flags, exit, told) in [
        (&["-p", "99999"][..], 1, "--envoy-port: `99999`"),
        (&["-i", "10.0.0.1"], 1, "10.0.0.1/32"),
        (&["-b", "8010-8000"], 1, "ends before"),
        (&["-u", "nobody-of-that-name"], 1, "--proxy-uid: `nobody-of-that-name`"),
        (&["-c", "an-interface-name-that-is-too-long"], 1, "characters"),
        (&["--dual-stack=perhaps"], 255, "perhaps"),
        (&["--no-such-flag"], 255, "--no-such-flag"),
    ] {
        let output = run(&machine, flags)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(exit), "{flags:?}: {}: {said}", output.status);
        ensure!(said.contains(told), "{flags:?}: {said}");
    }
    ensure!(init::state(&machine)? == before, "something changed");
    Ok(())
}
