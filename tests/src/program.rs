//! Where the programs are that the harness runs.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, ensure};

/// Names Envoy's program file.
pub const ENVOY: &str = "ISTIO_TEST_ENVOY";
/// Set to `1` where a test must not be left out for want of root or Envoy.
pub const REQUIRE: &str = "ISTIO_TEST_REQUIRE";

/// File of the module by which Envoy counts Istio's metrics.
pub const MODULE: &str = "libistio_telemetry.so";

/// Names the static istio-init that `scripts/small` builds.
pub const SMALL: &str = "ISTIO_TEST_SMALL_INIT";

/// The static istio-init.
///
/// # Errors
/// Nothing says where it is.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn small() -> anyhow::Result<PathBuf> {
    let path = env::var(SMALL);
    let path = path.with_context(|| format!("{SMALL} does not say where it is; use scripts/test netns"))?;
    Ok(PathBuf::from(path))
}

/// Names the folder of Python's gRPC.
pub const GRPC: &str = "ISTIO_TEST_GRPC";

/// The folder of Python's gRPC, for `PYTHONPATH`.
///
/// # Errors
/// Nothing says where it is, or it is not there.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn grpc() -> anyhow::Result<PathBuf> {
    let path = env::var(GRPC);
    let path =
        path.with_context(|| format!("{GRPC} does not say where Python's gRPC is; use scripts/test"))?;
    let path = PathBuf::from(path);
    ensure!(path.is_dir(), "{GRPC}={}: no such folder; run scripts/setup", path.display());
    Ok(path)
}

/// The programs of a mesh.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program.
    pub harness: PathBuf,
    /// Directory with `istiod`, `istio-agent`, `istio-init`, `istioctl`.
    pub ours: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
}

impl Programs {
    /// Finds them: ours beside this program, Envoy where `scripts/setup` says.
    ///
    /// # Errors
    /// What is missing, and what brings it.
    #[expect(clippy::disallowed_methods, reason = "the harness's one look at its environment")]
    pub fn find() -> anyhow::Result<Self> {
        let here = env::current_exe().context("this program's file")?;
        // A test's program lies one folder deeper.
        let ours = here.ancestors().skip(1).find(|dir| dir.join("istiod").is_file());
        let ours = ours.context("istiod is not built; run: cargo build --workspace")?.to_owned();
        for name in ["istiod", "istio-agent", "istio-init", "istioctl", "harness"] {
            ensure!(ours.join(name).is_file(), "{name} is not built; run: cargo build --workspace");
        }
        let envoy = env::var(ENVOY).with_context(|| {
            format!("{ENVOY} does not say where Envoy is; use scripts/demo or scripts/test, which get it")
        })?;
        let envoy = PathBuf::from(envoy);
        ensure!(envoy.is_file(), "{ENVOY}={}: no such file; run scripts/setup", envoy.display());
        Ok(Self { harness: ours.join("harness"), ours, envoy })
    }

    /// The module for Envoy, which the agent finds beside itself.
    ///
    /// # Errors
    /// It is not there.
    pub fn module(&self) -> anyhow::Result<PathBuf> {
        let path = self.ours.join(MODULE);
        ensure!(path.is_file(), "{MODULE} is not built; run: cargo build -p istio-telemetry");
        Ok(path)
    }

    /// The file of one of our programs.
    pub fn ours(&self, name: &str) -> PathBuf {
        self.ours.join(name)
    }

    /// Puts them where every user of this machine can run them: a checkout in
    /// a home directory is not such a place.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn install(&self, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let place = |from: &Path, name: &str| -> anyhow::Result<PathBuf> {
            let to = dir.join(name);
            if fs::hard_link(from, &to).is_err() {
                fs::copy(from, &to)
                    .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
            }
            Ok(to)
        };
        for name in ["istiod", "istio-agent", "istio-init", "istioctl"] {
            place(&self.ours(name), name)?;
        }
        // Without it all works but Istio's metrics.
        if let Ok(module) = self.module() {
            place(&module, MODULE)?;
        }
        Ok(Self {
            harness: place(&self.harness, "harness")?,
            ours: dir.to_owned(),
            envoy: place(&self.envoy, "envoy")?,
        })
    }
}

/// Whether a test that needs root may be left out without it.
///
/// # Errors
/// When it may not, or this is a machine where it can run but lacks something.
pub fn can_run() -> anyhow::Result<bool> {
    #[expect(clippy::disallowed_methods, reason = "the harness's one look at its environment")]
    let required = env::var(REQUIRE).is_ok_and(|value| value == "1");
    let is_root = nix::unistd::geteuid().is_root();
    ensure!(is_root || !required, "this needs root, and {REQUIRE}=1 says it must run");
    Ok(is_root)
}
