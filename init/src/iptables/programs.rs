//! The iptables programs: what is read from them and given to them.
//!
//! Nothing is ever written to find something out.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::config::Variant;
use crate::family::Family;

/// Seconds to wait for the lock that legacy iptables shares.
const LOCK_WAIT: &str = "--wait=30";
/// The variable that names the lock's file, and its default.
const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";
const SHARED_LOCK: &str = "/run/xtables.lock";
/// A file that every network namespace has, even on a read-only root.
const LOCK_OF_POD: &str = "/proc/self/ns/net";

/// What went wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error(
        "{program} is not in PATH; install the package iptables, or pass --native-nftables, which needs no program"
    )]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be run.
    #[error("running {program}: {source}")]
    Run {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("{program}: {status}: {message}{hint}")]
    Refused {
        /// Its name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
        /// What may help.
        hint: &'static str,
    },
}

impl Error {
    /// Whether the program is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the kernel refused for want of a capability.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if says_forbidden(message))
    }
}

/// Whom legacy iptables must wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Everybody who uses iptables on this file system.
    Shared,
    /// Those who work on the same network namespace.
    OfPod,
}

impl Lock {
    /// The shared lock, where its file can be written. A CNI plugin must not
    /// wait for the pods of a whole node.
    pub fn choose(is_cni: bool) -> Self {
        let can_write = |path: &str| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok();
        let is_usable = can_write(SHARED_LOCK) || (!Path::new(SHARED_LOCK).exists() && can_write("/run"));
        if is_cni || !is_usable { Self::OfPod } else { Self::Shared }
    }
}

/// The programs of one variant; `None` is whatever `iptables` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The variant.
    pub variant: Option<Variant>,
    /// Its lock.
    pub lock: Lock,
}

impl Programs {
    /// Name of a program, for example `ip6tables-nft-save`.
    pub fn name(self, family: Family, action: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self.variant {
            None => format!("{base}-{action}"),
            Some(Variant::Nft) => format!("{base}-nft-{action}"),
            Some(Variant::Legacy) => format!("{base}-legacy-{action}"),
        }
    }

    /// Starts reading the rules in force.
    ///
    /// # Errors
    /// The program is missing or cannot be run.
    pub fn read(self, family: Family) -> Result<Reading, Error> {
        let program = self.name(family, "save");
        let child = spawn(Command::new(&program), &program, Stdio::null())?;
        Ok(Reading { program, child })
    }

    /// Commits a change. The program reads all of it before it acts.
    ///
    /// # Errors
    /// What the program says.
    pub fn commit(self, family: Family, change: &str) -> Result<(), Error> {
        let program = self.name(family, "restore");
        let mut command = Command::new(&program);
        command.arg("--noflush");
        if self.variant != Some(Variant::Nft) {
            command.arg(LOCK_WAIT);
            if self.lock == Lock::OfPod {
                command.env(LOCK_VARIABLE, LOCK_OF_POD);
            }
        }
        let mut child = spawn(command, &program, Stdio::piped())?;
        // A program that ends early says why; the broken pipe says nothing.
        if let Some(mut stdin) = child.stdin.take() {
            drop(stdin.write_all(change.as_bytes()));
        }
        finish(child, program).map(drop)
    }
}

/// A program that is printing the rules in force.
pub struct Reading {
    program: String,
    child: Child,
}

impl Reading {
    /// Waits for its text.
    ///
    /// # Errors
    /// What the program says.
    pub fn text(self) -> Result<String, Error> {
        finish(self.child, self.program)
    }
}

fn spawn(mut command: Command, program: &str, stdin: Stdio) -> Result<Child, Error> {
    let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|source| {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { program },
            _ => Error::Run { program, source },
        }
    })
}

fn finish(child: Child, program: String) -> Result<String, Error> {
    let output = match child.wait_with_output() {
        Ok(output) => output,
        Err(source) => return Err(Error::Run { program, source }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let hint = hint(&message);
    Err(Error::Refused { program, status: output.status, message, hint })
}

fn says_forbidden(message: &str) -> bool {
    ["Permission denied", "you must be root", "Operation not permitted"]
        .iter()
        .any(|part| message.contains(part))
}

fn hint(message: &str) -> &'static str {
    let is_forbidden = says_forbidden(message);
    let message = message.to_ascii_lowercase();
    if is_forbidden {
        " (the container needs the capability NET_ADMIN, and NET_RAW for legacy iptables: \
         securityContext.capabilities.add)"
    } else if message.contains("can't initialize") || message.contains("not supported") {
        " (the kernel lacks this packet filter; on the node: modprobe nf_tables nf_nat, or ip_tables iptable_nat)"
    } else {
        ""
    }
}
