//! A listening Unix socket: its file, who may use it, and what is there before
//! it and when its file goes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use names::port::PROXY_UID;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use runtime::backoff::Backoff;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

/// Waits between the tries of [`open`], as Istio's agent does.
const WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// Waits between tries to make a socket again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Root, the user of the agent and that of the proxy; the file is 0660.
    Proxy,
    /// Everybody who sees the file, as with Istio's agent; the file is 0666.
    Anyone,
}

impl Access {
    /// Whether a process of that user may connect.
    #[must_use]
    pub fn admits(self, uid: u32) -> bool {
        self == Self::Anyone || [0, PROXY_UID, own_uid()].contains(&uid)
    }

    fn mode(self) -> u32 {
        match self {
            Self::Proxy => 0o660,
            Self::Anyone => 0o666,
        }
    }

    fn directory_mode(self) -> u32 {
        match self {
            Self::Proxy => 0o750,
            Self::Anyone => 0o755,
        }
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves there.
    #[error("socket {}: another process serves it already; stop it first", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    access: Access,
    listener: UnixListener,
    /// Device and inode of its file.
    file: (u64, u64),
}

/// Opens a socket, in place of what a process that is gone has left there.
///
/// # Errors
/// When somebody serves it, or the system refuses.
pub async fn listen(path: &Path, access: Access) -> Result<Socket, Error> {
    let io = |source| Error::Io { path: path.into(), source };
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = directory {
        let made: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::DirBuilder::new().recursive(true).mode(access.directory_mode()).create(dir).map_err(io)?;
        made.into_iter().for_each(|dir| share_with_proxy(dir, || lchown(dir, None, Some(PROXY_UID))));
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(Error::InUse(path.into())),
        // Its queue is full: whoever serves it is busy, not gone.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Error::InUse(path.into())),
        Err(_) => {}
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    let file = admit(path, access).map_err(io)?;
    Ok(Socket { path: path.into(), access, listener, file })
}

/// The same, tried several times, for what is in the way may go.
///
/// # Errors
/// That of the last try.
pub async fn open(name: &str, path: &Path, access: Access) -> Result<Socket, Error> {
    for wait in WAITS {
        match listen(path, access).await {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                let error = error.to_string();
                warn!(server = name, error, ?wait, "a socket cannot be opened; trying again");
            }
        }
        tokio::time::sleep(wait).await;
    }
    listen(path, access).await
}

/// Gives a new socket its mode; returns what [`identify`] does.
///
/// Whoever may write to the directory may have put a link in its place, to make
/// an agent that runs as root change another file: what is changed is what was
/// looked at, and no path is followed again.
pub(super) fn admit(path: &Path, access: Access) -> io::Result<(u64, u64)> {
    // Not by OpenOptions: with musl it takes O_PATH away.
    let held = fcntl::open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let held = File::from(held);
    let found = held.metadata()?;
    if !found.file_type().is_socket() || found.uid() != own_uid() {
        return Err(io::Error::other("something else has taken its place"));
    }
    let held_path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    fs::set_permissions(&held_path, Permissions::from_mode(access.mode()))?;
    share_with_proxy(path, || chown(&held_path, None, Some(PROXY_UID)));
    Ok((found.dev(), found.ino()))
}

/// A proxy that runs under a user of its own reaches the files of an agent
/// that runs as root by its group.
fn share_with_proxy(path: &Path, give: impl FnOnce() -> io::Result<()>) {
    if own_uid() != 0 {
        return;
    }
    if let Err(error) = give() {
        // Who runs everything as root can do without.
        tracing::debug!(path = %path.display(), %error, "give to the proxy's group");
    }
}

fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Socket {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who may connect.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Makes the socket again if its file is gone or another one is there.
    pub(super) async fn restore(&mut self, name: &str) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        let mut told = String::new();
        while identify(&self.path).ok() != Some(self.file) {
            match listen(&self.path, self.access).await {
                Ok(socket) => {
                    *self = socket;
                    info!(server = name, socket = %self.path.display(), "the socket's file was gone; made again");
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        warn!(
                            server = name,
                            error, "the socket's file is gone and cannot be made again; trying on"
                        );
                        told = error;
                    }
                    backoff.sleep().await;
                }
            }
        }
    }
}
