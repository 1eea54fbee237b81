//! The directory that keeps istiod's own secrets when there is no Kubernetes:
//! the self-signed CA and the key that signs tokens.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another program may use the directory; it needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const LOCK_FILE: &str = ".lock";
/// Files being written; one that is there without the lock is of a crash.
const DRAFT: &str = ".draft-";

/// Why the directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{action} {path}: {why}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A secret that others can read.
    #[error("{path} can be read by others (mode {mode:o}): run chmod 600 on it, and renew it if they may have read it",
            path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A directory in which others can put files of their own.
    #[error("{path} can be written by others (mode {mode:o}), who could put keys of their own into it: \
             run chmod 700 on it, or name another --state-dir",
            path = path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A directory or file of somebody else.
    #[error("{path} belongs to user {owner}, who could change what is in it: run chown {me} on it, or run \
             istiod as that user",
            path = path.display())]
    Foreign {
        /// The directory or file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that istiod runs as.
        me: u32,
    },
    /// Another program does not give the directory back.
    #[error("another program has used {path} for {}s: end it, lsof {lock} names it", PATIENCE.as_secs(),
            path = path.display(), lock = path.join(LOCK_FILE).display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |why| Error::Io { action, path, why }
}

/// Access to the files of one state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

/// The directory while nobody else changes it. Several programs may share it:
/// an istiod, its successor, `istiod token`.
#[derive(Debug)]
pub struct Locked<'a> {
    dir: &'a Path,
    _lock: File,
}

impl StateDir {
    /// Opens the directory, making it (mode 0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or when others could change what is in it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("make the state directory", path))?;
        let metadata = fs::metadata(path).map_err(io("look at", path))?;
        check_owner(path, &metadata)?;
        if metadata.mode() & 0o022 != 0 {
            return Err(Error::Writable { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        Ok(Self(path.into()))
    }

    /// Waits until nobody else changes the directory, and keeps others from it.
    ///
    /// # Errors
    /// When it cannot be locked in time.
    pub fn lock(&self) -> Result<Locked<'_>, Error> {
        let path = self.0.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open", &path))?;
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(why)) => return Err(io("lock", &path)(why)),
                Err(TryLockError::WouldBlock) if start.elapsed() > PATIENCE => {
                    return Err(Error::Busy { path: self.0.clone() });
                }
                #[expect(clippy::disallowed_methods, reason = "at start, when nothing else runs yet")]
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let locked = Locked { dir: &self.0, _lock: lock };
        locked.remove_drafts()?;
        Ok(locked)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Locked<'_> {
    /// Reads a secret; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read or when it is not the owner's alone.
    pub fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.dir.join(name);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io("read", &path))?,
        };
        check_owner(&path, &metadata)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Error::Exposed { mode: metadata.mode() & 0o777, path });
        }
        fs::read_to_string(&path).map(Some).map_err(io("read", &path))
    }

    /// Writes a secret that is not there yet (mode 0600), whole or not at all,
    /// also when the machine stops meanwhile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(&self, name: &str, text: &str) -> Result<(), Error> {
        // A link, unlike a rename, never replaces what is there.
        self.write(name, text, 0o600, |draft, path| {
            fs::hard_link(draft, path)?;
            fs::remove_file(draft)
        })
    }

    /// Replaces a secret (mode 0600), whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn replace(&self, name: &str, text: &str) -> Result<(), Error> {
        self.write(name, text, 0o600, |draft, path| fs::rename(draft, path))
    }

    /// Writes or replaces a file that everybody may read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, name: &str, text: &str) -> Result<(), Error> {
        self.write(name, text, 0o644, |draft, path| fs::rename(draft, path))
    }

    fn write(
        &self,
        name: &str,
        text: &str,
        mode: u32,
        place: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let path = self.dir.join(name);
        let draft = self.dir.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            place(&draft, &path)?;
            // The name counts only once the directory is on the disk.
            File::open(self.dir)?.sync_all()
        })();
        written.map_err(|why| {
            // Of no use now, and removed by the next one at the latest.
            fs::remove_file(&draft).ok();
            io("write", &path)(why)
        })
    }

    /// Removes what a crash left behind: it may hold a key.
    fn remove_drafts(&self) -> Result<(), Error> {
        for entry in fs::read_dir(self.dir).map_err(io("read", self.dir))? {
            let entry = entry.map_err(io("read", self.dir))?;
            if entry.file_name().to_string_lossy().starts_with(DRAFT) {
                fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Only we and root may change it.
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let me = nix::unistd::geteuid().as_raw();
    let owner = metadata.uid();
    if owner == me || owner == 0 {
        return Ok(());
    }
    Err(Error::Foreign { path: path.into(), owner, me })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn keeps_secrets_to_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        let locked = state.lock().unwrap();
        assert!(locked.read("key.pem").unwrap().is_none());
        locked.create("key.pem", "secret").unwrap();
        assert_eq!(locked.read("key.pem").unwrap().as_deref(), Some("secret"));
        let error = locked.create("key.pem", "other").unwrap_err().to_string();
        assert_eq!(error.matches("exists").count(), 1, "{error}");
        assert_eq!(locked.read("key.pem").unwrap().as_deref(), Some("secret"));
        mode(&state.path().join("key.pem"), 0o644);
        assert!(matches!(locked.read("key.pem"), Err(Error::Exposed { mode: 0o644, .. })));
        let left: Vec<_> =
            fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the file and the lock: {left:?}");
    }

    #[test]
    fn refuses_a_directory_that_others_can_change() {
        let dir = tempfile::tempdir().unwrap();
        for (bits, is_fine) in [(0o777, false), (0o770, false), (0o1777, false), (0o755, true), (0o700, true)]
        {
            mode(dir.path(), bits);
            let opened = StateDir::open(dir.path());
            assert_eq!(opened.is_ok(), is_fine, "{bits:o}");
            if let Err(error) = opened {
                let text = error.to_string();
                assert!(text.contains(&format!("{bits:o}")) && text.contains("chmod 700"), "{text}");
            }
        }
    }

    #[test]
    fn refuses_a_directory_of_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345") && error.contains("chown 0"), "{error}");
    }

    #[test]
    fn a_draft_that_a_crash_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let draft = dir.path().join(".draft-0123");
        fs::write(&draft, "half a k").unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.lock().unwrap().publish("roots.pem", "r").unwrap();
        assert!(!draft.exists());
        assert_eq!(fs::read_to_string(dir.path().join("roots.pem")).unwrap(), "r");
    }
}
