//! Listeners where Envoy's will be, and whom their connections were meant for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt,
    socket, sockopt,
};

use crate::family::Family;

/// A listener, or why there is none.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) socket: io::Result<TcpListener>,
}

/// A connection that came out at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Who dialled.
    pub(super) from: SocketAddr,
    /// The port of the listener.
    pub(super) port: u16,
    /// The address that was dialled; none when the kernel does not tell.
    pub(super) meant: Option<SocketAddr>,
}

pub(super) fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

impl Listener {
    /// Listens on the loopback address, which redirection of a local
    /// connection leads to.
    pub(super) fn open(family: Family, port: u16) -> Self {
        let address = SocketAddr::new(loopback(family), port);
        Self { address, socket: open(address) }
    }

    /// Everything that has arrived.
    pub(super) fn accept(&self) -> Vec<Arrival> {
        let Ok(listener) = &self.socket else { return Vec::new() };
        let mut arrivals = Vec::new();
        // An error is "no more", or of a connection that has ended already.
        while let Ok((connection, from)) = listener.accept() {
            arrivals.push(Arrival { from, port: self.address.port(), meant: meant(&connection).ok() });
        }
        arrivals
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(domain(address), SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // As Envoy does: another probe of the same user is no obstacle.
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(16)?)?;
    Ok(fd.into())
}

pub(super) fn domain(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The address that was dialled, before the kernel changed it.
fn meant(connection: &TcpStream) -> io::Result<SocketAddr> {
    if connection.local_addr()?.is_ipv4() {
        let address = getsockopt(connection, sockopt::OriginalDst)?;
        let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
        return Ok(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into());
    }
    let address = getsockopt(connection, sockopt::Ip6tOriginalDst)?;
    let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
    Ok(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0).into())
}
