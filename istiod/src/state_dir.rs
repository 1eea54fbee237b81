//! The directory that keeps istiod's own secrets when there is no Kubernetes:
//! the self-signed CA and the key that signs tokens.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why the directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
}

/// Access to the files of one state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens the directory, making it (mode 0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::Io {
            action: "make the state directory",
            path: path.into(),
            source,
        })?;
        Ok(Self(path.into()))
    }

    /// Reads a secret; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read or when others can read it too.
    pub fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.0.join(name);
        let io = |source| Error::Io { action: "read", path: path.clone(), source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(error)),
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                Err(Error::Exposed { mode: metadata.permissions().mode() & 0o777, path })
            }
            Ok(_) => fs::read_to_string(&path).map(Some).map_err(io),
        }
    }

    /// Writes secrets that belong together, each with mode 0600 and whole or
    /// not at all. The first name is put in place last: it marks the set as complete.
    ///
    /// Fails with `AlreadyExists` inside when another process was faster.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(&self, files: &[(&str, &str)]) -> Result<(), Error> {
        for (name, text) in files.iter().rev() {
            let path = self.0.join(name);
            let draft = self.0.join(format!(".{name}.{}", std::process::id()));
            let io = |source| Error::Io { action: "write", path: path.clone(), source };
            let result = (|| {
                let mut file =
                    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                // A link, unlike a rename, never replaces what is there.
                fs::hard_link(&draft, &path)
            })();
            // The draft is of no use whether it was linked or not.
            drop(fs::remove_file(&draft));
            result.map_err(io)?;
        }
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Error {
    /// Whether a file was there already.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_secrets_to_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert!(state.read("key.pem").unwrap().is_none());
        state.create(&[("key.pem", "secret")]).unwrap();
        assert_eq!(state.read("key.pem").unwrap().as_deref(), Some("secret"));
        assert!(state.create(&[("key.pem", "other")]).unwrap_err().is_already_there());
        fs::set_permissions(state.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(state.read("key.pem"), Err(Error::Exposed { mode: 0o644, .. })));
    }
}
