//! Accepts connections for gRPC: TCP, then TLS with whatever certificate
//! istiod has at that moment, then the peer's certificate for [`crate::auth`].

mod handshakes;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pki::certificate::Certificate;
use runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::debug;

use self::handshakes::Handshakes;
pub(crate) use self::handshakes::source;
use crate::ca::serving::Serving;

/// Time that a client has for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Finished handshakes that wait for the server to take them.
const ACCEPTED: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
    /// Its certificate, verified against the mesh's roots.
    pub certificate: Option<Arc<Certificate>>,
}

/// A connection of either kind.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts plaintext connections.
pub fn plain(tasks: &Tasks, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
    accept(tasks, listener, |stream, address| async move {
        Ok(Connection {
            stream: Stream::Plain(stream),
            peer: Peer { address, is_tls: false, certificate: None },
        })
    })
}

/// Accepts TLS connections.
pub fn tls(tasks: &Tasks, listener: TcpListener, serving: Serving) -> ReceiverStream<io::Result<Connection>> {
    accept(tasks, listener, move |stream, address| {
        let acceptor = TlsAcceptor::from(serving.borrow().clone());
        async move {
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
            let chain = stream.get_ref().1.peer_certificates();
            let certificate = chain
                .and_then(|chain| chain.first())
                .and_then(|leaf| Certificate::from_der(leaf.as_ref()).ok())
                .map(Arc::new);
            Ok(Connection {
                stream: Stream::Tls(Box::new(stream)),
                peer: Peer { address, is_tls: true, certificate },
            })
        }
    })
}

fn accept<F, Fut>(tasks: &Tasks, listener: TcpListener, setup: F) -> ReceiverStream<io::Result<Connection>>
where
    F: Fn(TcpStream, SocketAddr) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<Connection>> + Send + 'static,
{
    let (tx, rx) = mpsc::channel(ACCEPTED);
    let set = tasks.clone();
    tasks.spawn("accept", async move {
        let mut handshakes = Handshakes::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tx.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: let some be returned.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let mut permit = handshakes.enter(address.ip()).await;
            // Responses are small and answered; waiting to fill packets only adds latency.
            stream.set_nodelay(true).ok();
            let tx = tx.clone();
            let connection = setup(stream, address);
            set.spawn("handshake", async move {
                match permit.within(connection).await {
                    // The receiver is gone when the server stops.
                    Some(Ok(connection)) => drop(tx.send(Ok(connection)).await),
                    Some(Err(error)) => debug!(%address, %error, "handshake"),
                    None => debug!(%address, "handshake given up: others wait"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(rx)
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
