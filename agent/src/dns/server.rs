//! The sockets that applications ask.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::proxy::{Decision, Proxy};
use super::query::{OWN_SIZE, Transport};
use super::upstream::frame;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Pause after an error that will come again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Both kinds of socket at one address.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    /// Opens them; port 0 is one that both can have.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, (&'static str, io::Error)> {
        let tcp = TcpListener::bind(address).await.map_err(|error| ("tcp", error))?;
        let address = tcp.local_addr().map_err(|error| ("tcp", error))?;
        let udp = UdpSocket::bind(address).await.map_err(|error| ("udp", error))?;
        Ok(Self { udp: Arc::new(udp), tcp })
    }

    /// Where they are.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the tasks are stopped.
    pub(super) fn serve(self, proxy: Arc<Proxy>, tasks: &Tasks) {
        drop(tasks.spawn("dns udp", datagrams(self.udp, proxy.clone(), tasks.clone())));
        drop(tasks.spawn("dns tcp", connections(self.tcp, proxy, tasks.clone())));
    }
}

async fn datagrams(socket: Arc<UdpSocket>, proxy: Arc<Proxy>, tasks: Tasks) {
    let mut buffer = vec![0; OWN_SIZE.into()];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(target: "dns", %error, "receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        match proxy.decide(buffer[..length].to_vec(), Transport::Udp) {
            Decision::Ignore => {}
            Decision::Reply(reply) => send(&socket, &reply, client),
            Decision::Forward(forward) => {
                let (proxy, socket) = (proxy.clone(), socket.clone());
                let task = async move { send(&socket, &proxy.forward(forward).await, client) };
                drop(tasks.spawn("dns request", task));
            }
        }
    }
}

/// Sends without waiting: a datagram may be lost, and the client asks again.
fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.try_send_to(reply, client) {
        debug!(target: "dns", %error, %client, "send");
    }
}

async fn connections(listener: TcpListener, proxy: Arc<Proxy>, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let proxy = proxy.clone();
                let task = async move {
                    if let Err(error) = connection(stream, &proxy).await {
                        debug!(target: "dns", %error, %client, "connection");
                    }
                    drop(slot);
                };
                drop(tasks.spawn("dns connection", task));
            }
            Err(error) => {
                warn!(target: "dns", %error, "accept");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request after the other, until the client has no more.
async fn connection(mut stream: TcpStream, proxy: &Proxy) -> io::Result<()> {
    loop {
        let Some(request) = timeout(SILENCE, read(&mut stream)).await?? else { return Ok(()) };
        let reply = match proxy.decide(request, Transport::Tcp) {
            Decision::Ignore => return Ok(()),
            Decision::Reply(reply) => reply,
            Decision::Forward(forward) => proxy.forward(forward).await,
        };
        let Some(reply) = frame(&reply) else { return Ok(()) };
        timeout(SILENCE, stream.write_all(&reply)).await??;
    }
}

/// The next request; `None` when there is none, or one that is none.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) if length <= OWN_SIZE => usize::from(length),
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    Ok(Some(request))
}
