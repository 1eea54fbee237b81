//! The Envoy process: started so that it cannot outlive the agent, awaited,
//! and ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tracing::{info, warn};

use super::memory::Kills;
use crate::config::{self, Paths};

/// Time that Envoy has to follow SIGTERM before it is killed.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// Added to the number of the signal that ended a process, as shells do.
const SIGNAL_BASE: u8 = 128;

/// Envoy cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bootstrap cannot be written.
    #[error("write Envoy's bootstrap {}: {source}", path.display())]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its program cannot be run.
    #[error("start Envoy {}: {source}; set binaryPath in the ProxyConfig to Envoy's program", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running Envoy.
#[derive(Debug)]
pub struct Process {
    child: Child,
    bootstrap: Option<PathBuf>,
    /// What the kernel had killed for want of memory before Envoy started.
    kills: Option<Kills>,
}

impl Process {
    /// Writes the bootstrap and starts Envoy.
    ///
    /// # Errors
    /// When one or the other fails.
    pub fn start(envoy: &config::Envoy, paths: &Paths) -> Result<Self, Error> {
        let bootstrap = match &envoy.bootstrap {
            Some(json) => Some(write_bootstrap(&paths.bootstrap, json)?),
            None => None,
        };
        let mut command = Command::new(&envoy.binary);
        command
            .args(&envoy.args)
            .envs(envoy.env.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|source| Error::Start { path: envoy.binary.clone(), source })?;
        info!(pid = child.id(), args = envoy.shown_args().join(" "), "Envoy started");
        Ok(Self { child, bootstrap, kills: Kills::now() })
    }

    /// Waits until Envoy ends by itself.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Whether the kernel has killed for want of memory since Envoy started;
    /// with a status of SIGKILL that was Envoy.
    #[must_use]
    pub fn lacked_memory(&self) -> bool {
        self.kills.as_ref().is_some_and(Kills::are_more)
    }

    /// Ends Envoy: politely, then for good.
    pub async fn end(&mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // Gone already is as good.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            if tokio::time::timeout(TERM_GRACE, self.child.wait()).await.is_ok() {
                return;
            }
        }
        self.kill().await;
    }

    /// Ends Envoy at once.
    pub async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            warn!(%error, "kill Envoy");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(path) = &self.bootstrap {
            // Nobody reads it any more; a file that stays does no harm.
            drop(fs::remove_file(path));
        }
    }
}

/// The exit code that tells how a process ended.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.or(signal.map(|signal| SIGNAL_BASE.saturating_add(signal))).unwrap_or(1)
}

fn write_bootstrap(path: &std::path::Path, json: &serde_json::Value) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt as _;

    let failed = |source| Error::Bootstrap { path: path.into(), source };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    fs::write(path, json.to_string()).map_err(failed)?;
    Ok(path.to_owned())
}

/// Makes the kernel kill the child when this process ends in whatever way.
///
/// The kernel watches the thread that starts the child, not the process: the
/// agent has only one that starts any, and it lasts to the end.
pub(crate) fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    let parent = nix::unistd::getpid();
    let setup = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and
    // compares numbers; it allocates nothing and takes no lock.
    #[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
    unsafe {
        command.as_std_mut().pre_exec(setup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Process, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = Paths {
            sds_socket: at("s"),
            ads_socket: at("a"),
            bootstrap: at("conf/envoy-rev.json"),
            token: at("t"),
        };
        let envoy = config::Envoy {
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), at("started").to_string_lossy().into_owned()],
            env: Vec::new(),
            bootstrap: Some(serde_json::json!({"node": {}})),
        };
        (Process::start(&envoy, &paths).unwrap(), dir)
    }

    #[tokio::test]
    async fn tells_how_it_ended() {
        let (mut process, _dir) = run("exit 7");
        assert_eq!(exit_code(process.wait().await.unwrap()), 7);
        let (mut process, _dir) = run("kill -SEGV $$");
        assert_eq!(exit_code(process.wait().await.unwrap()), 128 + 11);
    }

    #[tokio::test]
    async fn ends_even_when_it_does_not_want_to() {
        let (mut process, dir) = run("trap '' TERM; : > \"$0\"; while :; do sleep 0.05; done");
        let bootstrap = dir.path().join("conf/envoy-rev.json");
        assert!(bootstrap.exists());
        // Before the trap is set the signal would end it.
        let started = async {
            while !dir.path().join("started").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), started).await.unwrap();
        process.end().await;
        assert_eq!(exit_code(process.wait().await.unwrap()), 128 + 9);
        drop(process);
        assert!(!bootstrap.exists(), "the bootstrap goes with Envoy");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = Paths { sds_socket: at("s"), ads_socket: at("a"), bootstrap: at("b"), token: at("t") };
        let envoy = config::Envoy {
            binary: "/nowhere/envoy".into(),
            args: Vec::new(),
            env: Vec::new(),
            bootstrap: None,
        };
        let error = Process::start(&envoy, &paths).unwrap_err().to_string();
        assert!(error.starts_with("start Envoy /nowhere/envoy: ") && error.contains("binaryPath"), "{error}");
    }
}
