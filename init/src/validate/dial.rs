//! One dial, from the socket to what can be seen of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, getsockopt, setsockopt, socket, sockopt,
};

use super::listen::domain;

/// A dial on its way.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) socket: OwnedFd,
    /// By which its arrival is known.
    pub(super) from: SocketAddr,
    pub(super) since: Instant,
    /// Whether somebody has answered.
    pub(super) is_answered: bool,
}

/// What a dial came to when it did not arrive here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody listens there.
    Refused,
    /// No answer for that long.
    Unanswered(Duration),
    /// Somebody else took it.
    TakenElsewhere,
    /// It came out at this port, meant for that address.
    Strayed {
        /// The port.
        port: u16,
        /// The address, as the kernel tells.
        meant: Option<SocketAddr>,
    },
    /// There is no way to that address.
    NoRoute(Errno),
    /// Another error.
    Error(Errno),
}

impl Dial {
    /// Dials. Without `from`, the dial leaves the pod unless it is redirected:
    /// then it must not get further than the node.
    pub(super) fn start(from: Option<SocketAddr>, to: SocketAddr) -> Result<Self, Seen> {
        let socket = open(from, to).map_err(Seen::Error)?;
        let is_answered = match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) => true,
            Err(Errno::EINPROGRESS) => false,
            Err(error) => return Err(Seen::of(error)),
        };
        let from = getsockname::<SockaddrStorage>(socket.as_raw_fd()).map_err(Seen::Error)?;
        let from = address(&from).map_err(|_| Seen::Error(Errno::EAFNOSUPPORT))?;
        Ok(Self { socket, from, since: Instant::now(), is_answered })
    }

    /// Looks what has become of it, after the kernel said that something did.
    pub(super) fn look(&mut self) -> Result<(), Seen> {
        match getsockopt(&self.socket, sockopt::SocketError) {
            Ok(0) => {
                if !self.is_answered {
                    self.since = Instant::now();
                }
                self.is_answered = true;
                Ok(())
            }
            Ok(error) => Err(Seen::of(Errno::from_raw(error))),
            Err(error) => Err(Seen::Error(error)),
        }
    }
}

impl Seen {
    fn of(error: Errno) -> Self {
        match error {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL => Self::NoRoute(error),
            error => Self::Error(error),
        }
    }
}

fn open(from: Option<SocketAddr>, to: SocketAddr) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(domain(to), SockType::Stream, flags, None)?;
    match from {
        Some(from) => bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?,
        None if to.is_ipv4() => setsockopt(&socket, sockopt::Ipv4Ttl, &1)?,
        None => setsockopt(&socket, sockopt::Ipv6Ttl, &1)?,
    }
    Ok(socket)
}

fn address(storage: &SockaddrStorage) -> io::Result<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    let v6 = || storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())));
    v4.or_else(v6).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
