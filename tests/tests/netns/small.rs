//! The static program: small, and alone in an empty root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use istio_tests::oracle::init;

use super::{Case, machine};

pub(crate) const CASES: &[Case] = &[
    ("the_static_program_is_small", is_small),
    ("the_static_program_runs_in_an_empty_root", in_an_empty_root),
];

/// Bytes, as pods pull them.
const LARGEST: u64 = 3_000_000;

/// What `scripts/small` has built.
fn program() -> anyhow::Result<PathBuf> {
    let path = istio_tests::program::small()?;
    ensure!(path.is_file(), "{} is not built; run: scripts/small", path.display());
    Ok(path)
}

fn is_small() -> anyhow::Result<()> {
    let size = fs::metadata(program()?)?.len();
    ensure!(size <= LARGEST, "{size} bytes");
    Ok(())
}

fn in_an_empty_root() -> anyhow::Result<()> {
    let machine = machine()?;
    let root = std::env::temp_dir().join(format!("{}-root", machine.name()));
    fs::create_dir(&root)?;
    let ran = run(&root, &machine);
    let left: Vec<_> = fs::read_dir(&root)?.flatten().map(|entry| entry.file_name()).collect();
    fs::remove_dir_all(&root)?;
    ran?;
    ensure!(left == ["istio-init"], "it has left {left:?}");
    let state = init::state(&machine)?;
    ensure!(state["nft"]["inet istio-proxy-nat"].is_object(), "{state:#}");
    Ok(())
}

fn run(root: &Path, machine: &istio_tests::netns::Isolated) -> anyhow::Result<()> {
    fs::copy(program()?, root.join("istio-init"))?;
    let mut command = machine.command(Path::new("/usr/sbin/chroot"));
    command.arg(root).args(["/istio-init", "--native-nftables", "-i", "*", "-b", "*", "--dual-stack"]);
    let output = command.output().context("chroot")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
