//! Connections that find out where they arrive.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{sleep, timeout};

use super::wire::{Owner, Told};

/// How long an answer may take on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(5);

/// Where a connection begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The pod whose traffic is redirected.
    Pod,
    /// Everybody else.
    Peer,
    /// A virtual machine inside the pod.
    Vm,
}

impl Place {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Peer => "peer",
            Self::Vm => "vm",
        }
    }
}

/// A connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where it begins.
    pub place: Place,
    /// Whose it is.
    pub owner: Owner,
    /// Its source address, if it is not the kernel's choice.
    pub source: Option<IpAddr>,
    /// Its source port; 0 is the kernel's choice.
    pub source_port: u16,
    /// Where it is sent.
    pub to: SocketAddr,
    /// UDP instead of TCP.
    pub udp: bool,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, owner: Owner { uid, gid }, source, to, udp, .. } = self;
        write!(f, "{} {}:{uid}:{gid} ", if *udp { "udp" } else { "tcp" }, place.name())?;
        if let Some(source) = source {
            write!(f, "{source} ")?;
        }
        write!(f, "-> {to}")
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived where it was sent.
    Direct,
    /// It arrived at that port of the pod, its destination changed.
    Redirected(u16),
    /// It arrived at that port of the pod, its destination unchanged.
    Tproxied(u16),
}

impl Probe {
    /// A TCP connection of a user of that number.
    pub fn new(place: Place, id: u32, to: SocketAddr) -> Self {
        Self { place, owner: Owner::of(id), source: None, source_port: 0, to, udp: false }
    }

    /// The same of the other family: 10.X.Y.Z is fd00:X::Z, 172.X.Y.Z is
    /// fd00:X::Z, 192.X.Y.Z is 2001:db8::Z, 127.0.0.6 is ::6.
    #[must_use]
    pub fn twin(&self) -> Self {
        let to = SocketAddr::new(twin(self.to.ip()), self.to.port());
        Self { to, source: self.source.map(twin), ..self.clone() }
    }

    /// Connects from this thread's namespace and reads what the listener tells.
    ///
    /// # Errors
    /// It was refused, nobody answered, or the answer contradicts itself.
    pub async fn send(&self) -> anyhow::Result<Verdict> {
        self.send_within(PATIENCE).await
    }

    /// The same, with an answer in that time.
    ///
    /// # Errors
    /// As above.
    pub async fn send_within(&self, patience: Duration) -> anyhow::Result<Verdict> {
        let sending = async {
            let (told, local) = if self.udp { self.ask().await? } else { self.connect().await? };
            self.judge(&told, local).with_context(|| format!("at {told}"))
        };
        timeout(patience, sending).await.context("no answer")?
    }

    async fn connect(&self) -> anyhow::Result<(Told, SocketAddr)> {
        let socket = self.owner.during(|| match self.to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })?;
        // Gone at the end, without a state that would wait for late packets.
        socket.set_zero_linger()?;
        if let Some(source) = self.source {
            let source = SocketAddr::new(source, self.source_port);
            // An IPv6 address that was just added cannot be used for a moment. (Patience ends elsewhere.)
            while let Err(error) = socket.bind(source) {
                ensure!(error.kind() == ErrorKind::AddrNotAvailable, "binding {source}: {error}");
                sleep(MOMENT).await;
            }
        }
        let mut stream = socket.connect(self.to).await?;
        let local = stream.local_addr()?;
        let (mut text, mut buffer) = (Vec::new(), [0; 256]);
        while !text.ends_with(b"\n") {
            let length = stream.read(&mut buffer).await?;
            ensure!(length > 0, "closed after `{}`", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buffer[..length]);
        }
        Ok((Told::parse(&String::from_utf8_lossy(&text))?, local))
    }

    async fn ask(&self) -> anyhow::Result<(Told, SocketAddr)> {
        let any = if self.to.is_ipv4() { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = SocketAddr::new(self.source.unwrap_or(any), self.source_port);
        let socket = loop {
            match self.owner.during(|| std::net::UdpSocket::bind(from)) {
                // A program that is being started still holds a copy of the socket that had the port.
                Err(error) if error.kind() == ErrorKind::AddrInUse => sleep(MOMENT).await,
                made => break made?,
            }
        };
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        // An answer from another address than the one asked is not taken.
        socket.connect(self.to).await?;
        socket.send(b"?").await?;
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).await?;
        Ok((Told::parse(&String::from_utf8_lossy(&buffer[..length]))?, socket.local_addr()?))
    }

    fn judge(&self, told: &Told, local: SocketAddr) -> anyhow::Result<Verdict> {
        ensure!(told.peer.ip() == local.ip(), "the client is {local}");
        if told.local == self.to {
            // Where destinations become one, the kernel may have to tell clients apart by another port.
            ensure!(told.peer == local, "the client is {local}");
            return Ok(if told.port == self.to.port() {
                Verdict::Direct
            } else {
                Verdict::Tproxied(told.port)
            });
        }
        ensure!(told.place == Place::Pod.name(), "it left the pod for another address");
        match told.original {
            Some(original) if original == self.to => Ok(Verdict::Redirected(told.port)),
            // Of a datagram only the socket's port is known.
            None if self.udp => Ok(Verdict::Redirected(told.port)),
            original => bail!("its original destination is {original:?}"),
        }
    }
}

fn twin(address: IpAddr) -> IpAddr {
    let IpAddr::V4(v4) = address else { return address };
    // Digits are kept as they are written: 10 is 0x10.
    let hex = |byte: u8| u16::from_str_radix(&byte.to_string(), 16).unwrap_or_default();
    let [first, second, _, last] = v4.octets();
    let twin = match first {
        127 => Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, hex(last)]),
        192 => Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, hex(last)]),
        _ => Ipv6Addr::from([0xfd00, hex(second), 0, 0, 0, 0, 0, hex(last)]),
    };
    twin.into()
}
