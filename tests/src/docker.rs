//! A Docker engine of the test's own: its socket, state and images lie in one
//! directory, it changes no packet filter of the machine, and it goes with the
//! test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MntFlags, umount2};

use crate::netns::pause;
use crate::process::Process;

/// Time for the engine to answer.
const START: Duration = Duration::from_secs(60);
/// Time for it to end, with its containers.
const STOP: Duration = Duration::from_secs(60);

/// A running engine.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    engine: Process,
}

impl Docker {
    /// Starts an engine in that directory, which must be empty and whose path
    /// must be short enough for a socket.
    ///
    /// # Errors
    /// When there is none, or it does not start here; what it said.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| dir.join(name).display().to_string();
        let mut command = Command::new("dockerd");
        command.args(["--host", &socket(dir), "--data-root", &at("data"), "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid"), "--log-level", "warn"]);
        // The network of the machine is not ours to change.
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        let engine = Process::start(command, &dir.join("log")).context("dockerd")?;
        let mut docker = Self { dir: dir.to_owned(), engine };
        let start = Instant::now();
        while !docker.answers() {
            if let Some(status) = docker.engine.ended() {
                bail!("dockerd ended with {status}: {}", docker.log_end());
            }
            ensure!(start.elapsed() < START, "dockerd does not answer: {}", docker.log_end());
            pause();
        }
        Ok(docker)
    }

    fn answers(&self) -> bool {
        self.output(&mut self.command(&["version"])).is_ok()
    }

    fn log_end(&self) -> String {
        self.engine.output().lines().next_back().unwrap_or_default().to_owned()
    }

    /// `docker` with those arguments, for this engine.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.client("docker", args)
    }

    /// `docker compose` where there is the plugin, `docker-compose` otherwise.
    #[must_use]
    pub fn compose(&self, args: &[&str]) -> Command {
        let has_plugin = self.output(&mut self.command(&["compose", "version"])).is_ok();
        if has_plugin {
            self.command(&[&["compose"], args].concat())
        } else {
            self.client("docker-compose", args)
        }
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        // The builder of the engine itself, which is there without a plugin.
        command.args(args).env("DOCKER_HOST", socket(&self.dir)).env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs a command to its end; its standard output.
    ///
    /// # Errors
    /// When it fails; what it said.
    pub fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } =
            command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{command:?}: {status}: {}{said}", String::from_utf8_lossy(&stdout));
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// Runs `docker` with those arguments.
    ///
    /// # Errors
    /// When it fails; what it said.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.output(&mut self.command(args))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Err(error) = self.engine.stop(STOP) {
            eprintln!("dockerd: {error}");
        }
        // The engine leaves the mount behind that held its containers' namespaces.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        for point in points.filter(|point| point.starts_with(&self.dir)) {
            if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
                eprintln!("{}: {error}", point.display());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

fn socket(dir: &Path) -> String {
    format!("unix://{}", dir.join("docker.sock").display())
}
