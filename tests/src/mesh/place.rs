//! The directory of a mesh: one process at a time works on it, and what is
//! removed with it is what it lists.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;
use crate::netns::{self, make, pause};

/// Where directories of meshes lie.
const ROOT: &str = "/var/lib";
/// Longest name: with that of a pod it must fit into a file's name.
const MAX_NAME: usize = 40;
/// Marks a directory as one of ours, and is locked by who works on it.
const MARKER: &str = "mesh.lock";
/// First line of the marker; the process id follows.
const TITLE: &str = "istio mesh of the test harness";
/// Names of the namespaces, a line each.
const NAMESPACES: &str = "namespaces";
/// There when the mesh runs on without the harness.
const KEPT: &str = "kept";

/// The places that this process holds.
static HELD: Mutex<Vec<Weak<Place>>> = Mutex::new(Vec::new());

/// The name of a mesh: its directory's, and the first part of its namespaces'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// A name that cannot be one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the name of a mesh is {0:?}: expected 1 to {MAX_NAME} characters of a-z, 0-9 and '-', the first a letter or digit"
)]
pub struct InvalidName(String);

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=MAX_NAME).contains(&text.len()) && !text.starts_with('-');
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if fits && text.bytes().all(is_plain) { Ok(Self(text.into())) } else { Err(InvalidName(text.into())) }
    }
}

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory of a mesh of that name.
    pub fn dir(&self) -> PathBuf {
        Path::new(ROOT).join(&self.0)
    }
}

/// Why a place cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process works on it.
    #[error(
        "a mesh of the name {name} is running (process {pid}); stop it: scripts/demo stop --name {name}, or choose another --name"
    )]
    Held {
        /// Its name.
        name: String,
        /// The process.
        pid: i32,
    },
    /// It was left running on purpose.
    #[error(
        "the mesh {0} was kept and still runs; stop it: scripts/demo stop --name {0}, or choose another --name"
    )]
    Kept(String),
    /// The directory was made by somebody else.
    #[error(
        "{} is not the directory of a mesh (it has no file {MARKER} of ours), so it is left alone: choose another --name, or remove it",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A mesh's directory, held by this process.
#[derive(Debug)]
pub struct Place {
    name: Name,
    dir: PathBuf,
    // Unlocked when the process ends, however it does.
    lock: Mutex<Option<File>>,
}

impl Place {
    /// Takes the directory for a new mesh, whose remains of an earlier time
    /// are removed first.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn take(name: &Name) -> anyhow::Result<Arc<Self>> {
        Self::take_in(Path::new(ROOT), name)
    }

    fn take_in(root: &Path, name: &Name) -> anyhow::Result<Arc<Self>> {
        let dir = root.join(name.as_str());
        make(|| {
            if let Some(old) = Self::open(&dir, name)? {
                if old.dir.join(KEPT).exists() && old.is_alive() {
                    return Err(Error::Kept(name.0.clone()).into());
                }
                old.remove();
            }
            let at = |source| Error::Io { path: dir.clone(), source };
            // Not 0700: the pods' users have to get through.
            match DirBuilder::new().mode(0o755).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Error::Foreign(dir.clone()).into());
                }
                made => made.map_err(at)?,
            }
            let place = Self::lock(&dir, name, true)?.ok_or_else(|| Error::Foreign(dir.clone()))?;
            let place = Arc::new(place);
            held().push(Arc::downgrade(&place));
            Ok(place)
        })
    }

    /// The directory of an earlier mesh, if there is one and nobody works on it.
    fn open(dir: &Path, name: &Name) -> Result<Option<Self>, Error> {
        match dir.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.is_dir() => {}
            _ => return Err(Error::Foreign(dir.into())),
        }
        match Self::lock(dir, name, false)? {
            Some(place) => Ok(Some(place)),
            // It may just have been removed.
            None if !dir.exists() => Ok(None),
            None => Err(Error::Foreign(dir.into())),
        }
    }

    /// Locks the marker; `None` when there is none of ours.
    fn lock(dir: &Path, name: &Name, create: bool) -> Result<Option<Self>, Error> {
        let path = dir.join(MARKER);
        let at = |source| Error::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return Ok(None),
            Err(error) => return Err(at(error)),
        };
        let mut text = String::new();
        if !create && (file.read_to_string(&mut text).is_err() || text.lines().next() != Some(TITLE)) {
            return Ok(None);
        }
        let pid = text.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_default();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Held { name: name.0.clone(), pid }),
            Err(TryLockError::Error(error)) => return Err(at(error)),
        }
        // Its owner may have removed it between the two calls.
        let same =
            |one: &fs::Metadata, other: &fs::Metadata| one.ino() == other.ino() && one.dev() == other.dev();
        let inode = file.metadata().map_err(at)?;
        if !path.symlink_metadata().is_ok_and(|now| same(&now, &inode)) {
            return Ok(None);
        }
        file.set_len(0).map_err(at)?;
        file.rewind().map_err(at)?;
        writeln!(file, "{TITLE}\n{}", std::process::id()).map_err(at)?;
        Ok(Some(Self { name: name.clone(), dir: dir.into(), lock: Mutex::new(Some(file)) }))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Notes a namespace that is about to be made, and will go with the mesh.
    ///
    /// # Errors
    /// When there is one already: it is not ours then.
    pub fn claim(&self, namespace: &str) -> anyhow::Result<()> {
        ensure!(
            !netns::exists(namespace),
            "there is a network namespace {namespace} already, which is not of the mesh {}: remove it, or choose another --name",
            self.name.0
        );
        let path = self.dir.join(NAMESPACES);
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{namespace}")).with_context(|| path.display().to_string())
    }

    fn namespaces(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.dir.join(NAMESPACES)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn is_alive(&self) -> bool {
        self.namespaces().iter().any(|name| !netns::processes(name).is_empty())
    }

    /// Notes that it runs on without this process.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let path = self.dir.join(KEPT);
        fs::write(&path, "").with_context(|| path.display().to_string())
    }

    /// Ends its processes and removes its namespaces and files. Once only: the
    /// name may be another's afterwards.
    pub fn remove(&self) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            return;
        }
        netns::remove(&self.namespaces());
        // The marker goes last: what is left of a removal that breaks off is ours still.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() != MARKER && fs::remove_dir_all(&path).is_err() {
                fs::remove_file(&path).ok();
            }
        }
        if let Err(error) = fs::remove_file(self.dir.join(MARKER)).and_then(|()| fs::remove_dir(&self.dir)) {
            eprintln!("{} stays: {error}", self.dir.display());
        }
        *lock = None;
    }
}

fn held() -> MutexGuard<'static, Vec<Weak<Place>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every mesh that this process works on.
pub fn remove_held() {
    let all: Vec<Arc<Place>> = held().iter().filter_map(Weak::upgrade).collect();
    for place in all {
        place.remove();
    }
}

/// Stops the mesh of a name, whoever runs it; `false` when there is none.
///
/// # Errors
/// When it is not a mesh, or does not stop.
pub fn stop(name: &Name) -> anyhow::Result<bool> {
    let dir = name.dir();
    let start = std::time::Instant::now();
    let mut asked = 0;
    loop {
        match Place::open(&dir, name) {
            Ok(Some(place)) => {
                place.remove();
                return Ok(true);
            }
            Ok(None) => return Ok(asked != 0),
            Err(Error::Held { pid, .. }) if pid > 0 && start.elapsed() < PATIENCE => {
                // Who holds the lock is alive; it removes its mesh itself.
                if asked != pid {
                    kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                    asked = pid;
                }
                pause();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
