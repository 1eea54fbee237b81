//! Decides when and how the running agent ends.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use runtime::watch::files::Changes;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Running, STOP_TIMEOUT};
use crate::envoy::drain;
use crate::envoy::process::{Process, exit_code};
use crate::status::Command;

/// Exit code when the status port has failed.
const STATUS_FAILED: u8 = 1;

/// A file whose appearance ends the agent.
#[derive(Debug)]
pub(super) struct ExitFile {
    pub(super) path: PathBuf,
    pub(super) changes: Changes,
}

impl ExitFile {
    /// Completes when the file is there.
    async fn appeared(&mut self) {
        while !self.path.exists() {
            self.changes.changed().await;
        }
    }
}

/// Waits for it; for ever when there is none.
async fn appeared(file: &mut Option<ExitFile>) {
    match file {
        Some(file) => file.appeared().await,
        None => std::future::pending().await,
    }
}

impl Running {
    /// Runs until a signal, a request to end, or the end of Envoy; returns the
    /// exit code: Envoy's when it ended by itself, 0 after an ordered end.
    pub async fn run(mut self, mut signals: mpsc::Receiver<()>) -> u8 {
        let mut is_drained = false;
        let code = loop {
            tokio::select! {
                status = ended(&mut self.envoy) => break self.report(&status),
                Some(()) = signals.recv() => {
                    self.ready.drain();
                    if is_drained {
                        info!("signal after a drain: ending");
                        break 0;
                    }
                    info!("signal: draining");
                    break self.drain(&mut signals).await;
                }
                () = appeared(&mut self.exit_file) => {
                    info!("the exit file is there: draining");
                    self.ready.drain();
                    break self.drain(&mut signals).await;
                }
                ended = &mut self.status_server => {
                    let reason = ended.ok().flatten().map(|error| error.to_string());
                    error!(reason, "the status port has failed, and nobody could see whether this works: draining");
                    self.ready.drain();
                    break self.drain(&mut signals).await.max(STATUS_FAILED);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Drain => {
                        info!("asked to drain");
                        drain::begin(&self.drain, &self.admin, true).await;
                        is_drained = true;
                    }
                    Command::Quit => {
                        info!("asked to end: ending at once");
                        self.ready.drain();
                        break 0;
                    }
                },
            }
        };
        if let Some(envoy) = &mut self.envoy {
            envoy.end().await;
        }
        self.tasks.stop(STOP_TIMEOUT).await;
        code
    }

    /// Drains until Envoy may leave or has left, or somebody insists; returns
    /// the exit code, which is Envoy's when it has left.
    async fn drain(&mut self, signals: &mut mpsc::Receiver<()>) -> u8 {
        if self.envoy.is_none() {
            return 0;
        }
        let (settings, admin) = (self.drain, self.admin.clone());
        let ports = drain::ports(&settings, self.status.port());
        let begin = async {
            drain::begin(&settings, &admin, false).await;
            std::future::pending().await
        };
        // Beside each other: an Envoy that does not answer must not prolong the drain.
        let mut orderly = std::pin::pin!(async {
            tokio::select! {
                biased;
                () = begin => {}
                () = drain::wait(&settings, &admin, ports.as_ref()) => {}
            }
        });
        loop {
            tokio::select! {
                () = &mut orderly => return 0,
                status = ended(&mut self.envoy) => return self.report(&status),
                Some(()) = signals.recv() => {
                    info!("second signal: ending at once");
                    return 0;
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Drain => info!("asked to drain, which is under way"),
                    Command::Quit => {
                        info!("asked to end: ending at once");
                        return 0;
                    }
                },
            }
        }
    }

    /// Says how Envoy has ended; returns the exit code for it.
    fn report(&self, status: &io::Result<ExitStatus>) -> u8 {
        match status {
            Ok(status) if status.success() => {
                info!("Envoy has ended by itself");
                0
            }
            Ok(status) => {
                let code = exit_code(*status);
                error!(%status, exit_code = code, "Envoy has ended by itself");
                if status.signal() == Some(Signal::SIGKILL as i32)
                    && self.envoy.as_ref().is_some_and(Process::lacked_memory)
                {
                    warn!("Envoy was killed because the container has no memory left: raise its limit");
                }
                code
            }
            Err(error) => {
                error!(%error, "wait for Envoy");
                1
            }
        }
    }
}

/// Waits for Envoy's end; for ever when there is no Envoy.
async fn ended(envoy: &mut Option<Process>) -> io::Result<ExitStatus> {
    match envoy {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}
