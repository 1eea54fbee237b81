//! A program that runs beside the harness, with its output in a file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{make, pause};

/// Groups of the programs that run.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every program that runs beside the harness, and what it started.
pub fn kill_all() {
    for group in &*running() {
        kill(Pid::from_raw(-group), Signal::SIGKILL).ok();
    }
}

/// A running program; it is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints is added to the file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) = (open().with_context(|| log.display().to_string())?, open()?);
        // A group of its own: Ctrl-C is for the harness, which ends the others in order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = make(|| {
            let child = command.spawn().with_context(|| format!("{command:?}"))?;
            running().insert(i32::try_from(child.id())?);
            Ok(child)
        })?;
        Ok(Self { child: Some(child), log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it printed.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.forget();
        Some(status)
    }

    /// Its number may be another one's from now on.
    fn forget(&self) {
        if let Some(group) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            running().remove(&group);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    /// Asks it to end and waits, at most that long.
    ///
    /// # Errors
    /// When it does not end; it is killed then.
    pub fn stop(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// Waits for its end, at most that long.
    ///
    /// # Errors
    /// When it does not end; it is killed then.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            pause();
        }
        if let Some(child) = &mut self.child {
            child.kill()?;
            child.wait()?;
        }
        self.forget();
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("still running after {limit:?}, killed")))
    }

    /// Lets it go on after the harness.
    pub fn release(&mut self) {
        self.forget();
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
        self.forget();
    }
}
