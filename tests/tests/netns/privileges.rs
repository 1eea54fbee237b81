//! What istio-init needs of the system, and what it does not: capabilities,
//! files, locks, its own namespace. And what `status` says of what it left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use istio_tests::netns::Isolated;
use istio_tests::oracle::init;
use serde_json::{Value, json};

use super::packets::BACK_ENDS;
use super::{Case, apply, machine, program, text};

pub(crate) const CASES: &[Case] = &[
    ("net_admin_is_enough", net_admin),
    ("a_missing_capability_is_named", no_capability),
    ("a_file_capability_is_enough_for_any_user", file_capability),
    ("a_read_only_root_is_enough", read_only_root),
    ("no_file_is_made", no_files),
    ("network_namespace_is_entered", network_namespace),
    ("cni_mode_does_not_wait_for_the_nodes_lock", cni_mode),
    ("status_tells_drift", drift),
    ("status_tells_drift_of_routes_and_addresses", drift_of_routes),
    ("clean_up_leaves_nothing_of_any_mode", clean_up),
];

const FLAGS: &[&str] = &["-u", "1337", "-i", "*", "-b", "*", "-d", "15090", "--dual-stack"];
/// Everything that leaves something in the kernel.
const EVERYTHING: &[&str] = &[
    "-i",
    "*",
    "-x",
    "10.1.0.0/16",
    "-b",
    "*",
    "-d",
    "15090",
    "-o",
    "22",
    "-q",
    "443",
    "-c",
    "eth7",
    "-k",
    "eth8",
    "--redirect-dns",
    "--capture-all-dns",
    "--drop-invalid",
    "--dual-stack",
];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn succeeds(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().context("istio-init")?;
    ensure!(output.status.success(), "{}: {}", output.status, said(&output));
    Ok(said(&output))
}

/// What these flags leave when nothing is in their way.
fn wanted(flags: &[&str]) -> anyhow::Result<Value> {
    let machine = machine()?;
    apply(&machine, flags)?;
    init::state(&machine)
}

fn is_as_wanted(machine: &Isolated, flags: &[&str]) -> anyhow::Result<()> {
    let (state, wanted) = (init::state(machine)?, wanted(flags)?);
    ensure!(state == wanted, "{flags:?}: {state:#}\nwanted:\n{wanted:#}");
    Ok(())
}

/// The program as root with these capabilities at most.
fn bounded(machine: &Isolated, capabilities: &str, flags: &[&str]) -> anyhow::Result<Command> {
    let mut command = machine.command(Path::new("setpriv"));
    command.args(["--bounding-set", capabilities, "--inh-caps", "-all", "--"]).arg(program()?).args(flags);
    Ok(command)
}

fn net_admin() -> anyhow::Result<()> {
    for (name, back_end) in [BACK_ENDS[0], BACK_ENDS[2]] {
        for mode in ["REDIRECT", "TPROXY"] {
            let flags = [EVERYTHING, back_end, &["-m", mode]].concat();
            let machine = machine()?;
            succeeds(bounded(&machine, "-all,+net_admin", &flags)?)
                .with_context(|| format!("{name}, {mode}"))?;
            is_as_wanted(&machine, &flags)?;
            succeeds(bounded(&machine, "-all,+net_admin", &["--cleanup-only"])?)?;
        }
    }
    let machine = machine()?;
    let flags = [EVERYTHING, BACK_ENDS[1].1].concat();
    succeeds(bounded(&machine, "-all,+net_admin,+net_raw", &flags)?)?;
    is_as_wanted(&machine, &flags)
}

fn no_capability() -> anyhow::Result<()> {
    let machine = machine()?;
    let before = init::state(&machine)?;
    for (name, back_end) in BACK_ENDS {
        let output = bounded(&machine, "-all", &[FLAGS, back_end].concat())?.output()?;
        let told = said(&output);
        ensure!(output.status.code() == Some(1), "{name}: {}: {told}", output.status);
        ensure!(told.contains("CAP_NET_ADMIN") && told.contains("add: [NET_ADMIN]"), "{name}: {told}");
    }
    let output = bounded(&machine, "-all,+net_admin", &[FLAGS, BACK_ENDS[1].1].concat())?.output()?;
    let told = said(&output);
    ensure!(output.status.code() == Some(1), "{}: {told}", output.status);
    ensure!(told.contains("NET_RAW"), "{told}");
    ensure!(init::state(&machine)? == before, "something changed");
    Ok(())
}

fn file_capability() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(1000), Some(1000))?;
    let copy: PathBuf = dir.path().join("istio-init");
    fs::copy(program()?, &copy)?;
    let given = Command::new("setcap").arg("cap_net_admin+ep").arg(&copy).output();
    if !given.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("left out: there is no program setcap, or the file system has no capabilities");
        return Ok(());
    }
    for (name, back_end) in [BACK_ENDS[0], BACK_ENDS[2]] {
        let flags = [EVERYTHING, back_end, &["-m", "TPROXY"]].concat();
        let machine = machine()?;
        let as_user = |flags: &[&str]| {
            let mut command = machine.command(Path::new("setpriv"));
            command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "--"]);
            command.arg(&copy).args(flags);
            succeeds(command).context(name)
        };
        as_user(&flags)?;
        is_as_wanted(&machine, &flags)?;
        let again = as_user(&flags)?;
        ensure!(again.contains("nothing changed"), "{name}: {again}");
        as_user(&["--cleanup-only"])?;
    }
    Ok(())
}

/// The program in a shell that first prepares its mounts, which are its own.
fn prepared(machine: &Isolated, prepare: &str, flags: &[&str]) -> anyhow::Result<Command> {
    let mut command = machine.command(Path::new("sh"));
    // Held open: a mount may hide where it lies.
    let script = format!("set -e\nexec 8< \"$1\"\nprogram=/proc/self/fd/8\nshift\n{prepare}");
    command.args(["-c", &script, "sh"]).arg(program()?).args(flags);
    Ok(command)
}

fn read_only_root() -> anyhow::Result<()> {
    const PREPARE: &str = "\
        while read -r _ place _; do mount -o remount,bind,ro \"$place\" 2>/dev/null || true; done < /proc/self/mounts\n\
        for place in / /run /tmp /var/tmp; do\n\
        if touch $place/istio-test 2>/dev/null; then echo \"$place can be written\"; exit 9; fi\n\
        done\n\
        exec \"$program\" \"$@\"";
    for (name, back_end) in BACK_ENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            let flags = [EVERYTHING, back_end, &["-m", mode]].concat();
            let machine = machine()?;
            let run = |flags: &[&str]| succeeds(prepared(&machine, PREPARE, flags)?).context(name);
            run(&flags)?;
            is_as_wanted(&machine, &flags)?;
            let again = run(&flags)?;
            ensure!(again.contains("nothing changed"), "{name}: {again}");
            run(&["--cleanup-only"])?;
        }
    }
    Ok(())
}

/// A file that is made and removed again shows in the time of its folder.
fn no_files() -> anyhow::Result<()> {
    const PREPARE: &str = "\
        folders='/tmp /run /var/tmp /dev/shm'\n\
        for place in $folders; do mount -t tmpfs tmpfs $place; done\n\
        mkdir /tmp/here\n\
        cd /tmp/here\n\
        HOME=/tmp/here\n\
        export HOME\n\
        look() { stat -c '%n %y' $folders /tmp/here; find $folders; }\n\
        before=$(look)\n\
        \"$program\" \"$@\"\n\
        after=$(look)\n\
        if [ \"$before\" != \"$after\" ]; then echo \"$before\"; echo \"$after\"; exit 9; fi";
    for (name, back_end) in BACK_ENDS {
        // Legacy iptables has a lock file of its own.
        let cni: &[&str] = if name == "iptables-legacy" { &["--cni-mode"] } else { &[] };
        let machine = machine()?;
        let flags = [EVERYTHING, back_end, cni].concat();
        succeeds(prepared(&machine, PREPARE, &flags)?).context(name)?;
        is_as_wanted(&machine, &flags)?;
        succeeds(prepared(&machine, PREPARE, &["--cleanup-only", "--cni-mode"])?).context(name)?;
    }
    Ok(())
}

fn network_namespace() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        let (here, there) = (machine()?, machine()?);
        let before = [init::state(&here)?, init::state(&there)?];
        let path = format!("/run/netns/{}", there.name());
        let flags = [EVERYTHING, back_end, &["-m", "TPROXY"]].concat();
        let there_flags = [&flags, &["--network-namespace", path.as_str()][..]].concat();
        apply(&here, &there_flags)?;
        is_as_wanted(&there, &flags).context(name)?;
        ensure!(init::state(&here)? == before[0], "{name}: it changed something here");
        let (code, told) = status(&here, &["--network-namespace", &path])?;
        ensure!(code == 1 && told.contains("Installed: by"), "{name}: {code}: {told}");
        apply(&here, &["--cleanup-only", "--network-namespace", &path])?;
        ensure!(init::state(&there)? == before[1], "{name}: something is left there");
    }
    let output = super::run(&machine()?, &["--network-namespace", "/run/netns/there-is-none"])?;
    let told = said(&output);
    ensure!(output.status.code() == Some(1), "{}: {told}", output.status);
    ensure!(told.contains("--network-namespace: /run/netns/there-is-none"), "{told}");
    Ok(())
}

/// Somebody holds the lock for ever: who waited for it would fail.
fn cni_mode() -> anyhow::Result<()> {
    const PREPARE: &str = "\
        mount -t tmpfs tmpfs /run\n\
        exec 9> /run/xtables.lock\n\
        flock 9\n\
        if flock --nonblock /run/xtables.lock true; then echo 'the lock is not held'; exit 9; fi\n\
        exec \"$program\" \"$@\"";
    for (name, back_end) in BACK_ENDS {
        let machine = machine()?;
        let flags = [EVERYTHING, back_end, &["--cni-mode"]].concat();
        succeeds(prepared(&machine, PREPARE, &flags)?).context(name)?;
        is_as_wanted(&machine, &flags)?;
        // What one back end holds, a run with another removes.
        let other = [FLAGS, BACK_ENDS[2].1, &["--cni-mode"]].concat();
        succeeds(prepared(&machine, PREPARE, &other)?).with_context(|| format!("{name}, then native"))?;
        succeeds(prepared(&machine, PREPARE, &flags)?).with_context(|| format!("native, then {name}"))?;
        succeeds(prepared(&machine, PREPARE, &["--cleanup-only", "--cni-mode"])?)?;
    }
    Ok(())
}

fn status(machine: &Isolated, flags: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = super::run(machine, &[&["status"], flags].concat())?;
    let code = output.status.code().context("a signal")?;
    ensure!(code < 2, "{code}: {}", said(&output));
    ensure!(output.stderr.is_empty() || code == 0, "{}", said(&output));
    Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn status_json(machine: &Isolated, flags: &[&str]) -> anyhow::Result<(i32, Value)> {
    let (code, told) = status(machine, &[flags, &["-o", "json"]].concat())?;
    Ok((code, serde_json::from_str(&told).with_context(|| told.clone())?))
}

/// As the flags ask, by that back end, in text and JSON.
fn is_right(machine: &Isolated, name: &str, flags: &[&str]) -> anyhow::Result<()> {
    let by = if name == "native" { "nftables" } else { name };
    let (code, told) = status(machine, flags)?;
    ensure!(code == 0 && told.contains("Wanted: the same"), "{flags:?}: {code}: {told}");
    ensure!(told.contains(&format!("Installed: by {by}, ")), "{told}");
    let (code, value) = status_json(machine, flags)?;
    ensure!(code == 0 && value["drifted"] == false && value["changes"] == json!([]), "{code}: {value:#}");
    let installed = value["installed"].as_array().map(Vec::as_slice);
    ensure!(matches!(installed, Some([only]) if only["by"] == by), "{value:#}");
    Ok(())
}

fn has_drifted(machine: &Isolated, flags: &[&str], told: &str) -> anyhow::Result<()> {
    let (code, text) = status(machine, flags)?;
    ensure!(code == 1 && text.contains("Wanted: something else"), "{flags:?}: {code}: {text}");
    ensure!(text.contains(told), "`{told}` is not in: {text}");
    let (code, value) = status_json(machine, flags)?;
    ensure!(code == 1 && value["drifted"] == true, "{code}: {value:#}");
    ensure!(value["changes"].as_array().is_some_and(|changes| !changes.is_empty()), "{value:#}");
    // Without flags it is only told what is there.
    let (code, value) = status_json(machine, &[])?;
    ensure!(code == 0 && value["drifted"].is_null(), "{code}: {value:#}");
    Ok(())
}

fn drift() -> anyhow::Result<()> {
    /// By iptables and by nft: one rule more, another order, one rule less.
    const CHANGES: [(&str, &str); 3] = [
        (
            "-t nat -A ISTIO_OUTPUT -p tcp --dport 9 -j RETURN",
            "add rule inet istio-proxy-nat istio-output tcp dport 9 return",
        ),
        (
            "-t nat -I ISTIO_OUTPUT -j ISTIO_REDIRECT",
            "insert rule inet istio-proxy-nat istio-output jump istio-redirect",
        ),
        ("-t nat -F ISTIO_IN_REDIRECT", "flush chain inet istio-proxy-nat istio-in-redirect"),
    ];
    for (name, back_end) in BACK_ENDS {
        let machine = machine()?;
        let flags = [FLAGS, back_end].concat();
        has_drifted(&machine, &flags, "Installed: nothing")?;
        for (by_iptables, by_nft) in CHANGES {
            apply(&machine, &flags)?;
            is_right(&machine, name, &flags)?;
            let (tool, change) = if name == "native" { ("nft", by_nft) } else { (name, by_iptables) };
            text(&machine, tool, &change.split(' ').collect::<Vec<_>>())?;
            has_drifted(&machine, &flags, "Installed: by").with_context(|| format!("{name}: {change}"))?;
        }
        apply(&machine, &flags)?;
        is_right(&machine, name, &flags)?;
        // Other flags than those of the run.
        has_drifted(&machine, &[&flags[..], &["-p", "16001"]].concat(), "16001")?;
    }
    Ok(())
}

fn drift_of_routes() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        let machine = machine()?;
        let flags = [FLAGS, back_end, &["-m", "TPROXY"]].concat();
        for (change, told) in [
            ("rule del fwmark 1337 lookup 133", "# routes"),
            ("-6 route del local default dev lo table 133", "# routes"),
            ("-6 addr del ::6/128 dev lo", "# addresses"),
        ] {
            apply(&machine, &flags)?;
            is_right(&machine, name, &flags)?;
            text(&machine, "ip", &change.split(' ').collect::<Vec<_>>())?;
            has_drifted(&machine, &flags, told).with_context(|| format!("{name}: ip {change}"))?;
        }
        apply(&machine, &flags)?;
        is_right(&machine, name, &flags)?;
    }
    Ok(())
}

fn clean_up() -> anyhow::Result<()> {
    let others: [&[&str]; 5] = [
        &[],
        &["-p", "16001", "-i", "10.0.0.0/8", "-b", "80"],
        &["--native-nftables", "-m", "TPROXY", "-t", "1400", "-r", "140"],
        &["--force-iptables-binary", "legacy", "--redirect-dns", "--capture-all-dns"],
        &["--force-iptables-binary", "nft", "--dual-stack", "--reconcile", "--force-apply"],
    ];
    for (name, back_end) in BACK_ENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            for other in others {
                let machine = machine()?;
                let before = init::state(&machine)?;
                let of_mode = ["-m", mode, "-t", "0x777", "-r", "177"];
                apply(&machine, &[EVERYTHING, back_end, &of_mode].concat())?;
                ensure!(init::state(&machine)? != before, "rules were applied");
                apply(&machine, &[&["--cleanup-only"], other].concat())?;
                let after = init::state(&machine)?;
                ensure!(after == before, "{name}, {mode}, {other:?}: {after:#}\nwanted:\n{before:#}");
                let (_, told) = status(&machine, &[])?;
                ensure!(told.contains("Installed: nothing"), "{told}");
                let (_, value) = status_json(&machine, &[])?;
                ensure!(value["installed"] == json!([]) && value["routes"] == json!([]), "{value:#}");
                ensure!(value["passthroughAddress"] == false, "{value:#}");
            }
        }
    }
    Ok(())
}
