//! Connections out of a network namespace of this machine.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Where `ip netns` has them.
const NAMED: &str = "/run/netns";

/// The file of a namespace: a path, or a name that `ip netns` knows.
pub(super) fn path(name: &str) -> PathBuf {
    if name.contains('/') { name.into() } else { Path::new(NAMED).join(name) }
}

/// Connects from inside of a namespace. A socket stays in the one in which it was made.
pub(super) fn connect(namespace: &Path, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let file = File::open(namespace)?;
    // Only a thread of its own goes there.
    let inside = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        TcpStream::connect_timeout(&address, limit)
    });
    inside.join().map_err(|_| io::Error::other("the thread ended"))?
}
