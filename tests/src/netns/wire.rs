//! Listeners that tell each client what arrived: which socket, for which
//! address, from whom.
//!
//! A listener's owner is that of its thread, as the packet filter sees it: the
//! kernel asks a socket for the user id for file access, which each thread has
//! of its own.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::within;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// User and group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// The user and the group of that number.
    pub const fn of(id: u32) -> Self {
        Self { uid: id, gid: id }
    }

    /// Makes what this thread makes meanwhile this owner's.
    pub fn during<T>(self, make: impl FnOnce() -> T) -> T {
        let (uid, gid) = (setfsuid(Uid::from_raw(self.uid)), setfsgid(Gid::from_raw(self.gid)));
        let made = make();
        setfsgid(gid);
        setfsuid(uid);
        made
    }
}

/// What a listener told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose listener it was.
    pub place: String,
    /// Its port.
    pub port: u16,
    /// The address of the connection on its side.
    pub local: SocketAddr,
    /// The address on the other side.
    pub peer: SocketAddr,
    /// `SO_ORIGINAL_DST`, if the kernel knew one.
    pub original: Option<SocketAddr>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, port, local, peer, original } = self;
        let original = original.map_or_else(|| "-".to_owned(), |address| address.to_string());
        write!(f, "{place} {port} {local} {peer} {original}")
    }
}

impl Told {
    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || anyhow!("a listener said `{text}`");
        let [place, port, local, peer, original] =
            text.split_whitespace().collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        Ok(Self {
            place: place.to_owned(),
            port: port.parse()?,
            local: local.parse()?,
            peer: peer.parse()?,
            original: if original == "-" { None } else { Some(original.parse()?) },
        })
    }
}

/// Listeners of one owner in one namespace; they end when dropped.
#[derive(Debug)]
pub struct Listeners {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listeners {
    /// Listens for TCP on ports of every address and for UDP on addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(
        namespace: &str,
        place: &'static str,
        owner: Owner,
        tcp: Vec<u16>,
        udp: Vec<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            let failed = ready.clone();
            let serving = within(&namespace, || async {
                let mut listeners = JoinSet::new();
                owner.during(|| {
                    for port in tcp {
                        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                            listeners.spawn(accept(place, port, tcp_listener(family, port)?));
                        }
                    }
                    for address in udp {
                        listeners.spawn(echo(place, address, udp_socket(address)?));
                    }
                    anyhow::Ok(())
                })?;
                ready.send(Ok(())).ok();
                // Its end is as good as a word.
                stopped.await.ok();
                Ok(())
            });
            if let Err(error) = serving {
                failed.try_send(Err(error)).ok();
            }
        });
        let listeners = Self { stop: Some(stop), thread: Some(thread) };
        is_ready.recv().context("the listeners' thread")??;
        Ok(listeners)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sets what every socket here has: one family, and addresses of others.
fn prepare(socket: &impl AsFd, family: AddressFamily) -> anyhow::Result<()> {
    if family == AddressFamily::Inet6 {
        setsockopt(socket, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(socket, sockopt::ReuseAddr, &true)?;
    // Harmless where nothing is captured that way.
    setsockopt(socket, sockopt::IpTransparent, &true)?;
    Ok(())
}

fn tcp_listener(family: AddressFamily, port: u16) -> anyhow::Result<TcpListener> {
    use tokio::net::TcpSocket;

    let (socket, address): (_, SocketAddr) = match family {
        AddressFamily::Inet6 => (TcpSocket::new_v6()?, (Ipv6Addr::UNSPECIFIED, port).into()),
        _ => (TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()),
    };
    prepare(&socket, family)?;
    socket.bind(address).with_context(|| address.to_string())?;
    Ok(socket.listen(BACKLOG)?)
}

fn udp_socket(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(family, SockType::Datagram, flags, None)?;
    prepare(&made, family)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&made), &SockaddrStorage::from(address))
        .with_context(|| address.to_string())?;
    Ok(UdpSocket::from_std(made.into())?)
}

async fn accept(place: &'static str, port: u16, listener: TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that went away again is none.
                if let Ok((stream, peer)) = accepted {
                    clients.spawn(tell(place, port, stream, peer));
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn tell(place: &'static str, port: u16, mut stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let told = Told { place: place.to_owned(), port, local, peer, original: original(&stream, local) };
    if stream.write_all(format!("{told}\n").as_bytes()).await.is_ok() {
        // The client ends it, so that this side keeps no state of it.
        stream.readable().await.ok();
    }
}

/// Where the client wanted to go, if the kernel's connection tracking knows.
fn original(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    if local.is_ipv4() {
        let address = nix::sys::socket::getsockopt(stream, sockopt::OriginalDst).ok()?;
        let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
        Some((ip, u16::from_be(address.sin_port)).into())
    } else {
        let address = nix::sys::socket::getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        Some((Ipv6Addr::from(address.sin6_addr.s6_addr), u16::from_be(address.sin6_port)).into())
    }
}

async fn echo(place: &'static str, local: SocketAddr, socket: UdpSocket) {
    let mut buffer = [0; 16];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let told = Told { place: place.to_owned(), port: local.port(), local, peer, original: None };
            socket.send_to(told.to_string().as_bytes(), peer).await.ok();
        }
    }
}
