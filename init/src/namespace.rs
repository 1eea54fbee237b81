//! Entering the network namespace that a flag names.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// The namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
#[error("--network-namespace: {}: {source}; write the path of a network namespace, such as /proc/PID/ns/net or /run/netns/NAME", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Moves this thread, and every program that it runs, into a namespace.
///
/// # Errors
/// The path is none, or the kernel refuses (`CAP_SYS_ADMIN` is needed).
pub fn enter(path: &Path) -> Result<(), Error> {
    let wrong = |source| Error { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    if is_ours(&file).map_err(wrong)? {
        // Nothing to do, and no privilege needed for it.
        return Ok(());
    }
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| wrong(errno.into()))
}

fn is_ours(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let (theirs, ours) = (file.metadata()?, std::fs::metadata("/proc/self/ns/net")?);
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_namespace_is() {
        let error = enter(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(
            error.contains("--network-namespace: /nowhere") && error.contains("/proc/PID/ns/net"),
            "{error}"
        );
        enter(Path::new("/proc/self/ns/net")).unwrap();
    }
}
