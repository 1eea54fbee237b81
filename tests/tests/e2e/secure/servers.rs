//! Servers and clients of TLS that the tests are themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use istio_tests::client::LIMIT;
use istio_tests::netns;
use pki::verify;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificates::Pair;

/// A server that answers every request with 200, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server wants of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Anybody.
    All,
    /// Those with a certificate of its roots.
    Known,
}

impl Server {
    /// Starts one in a network.
    pub(crate) fn start(
        network: &str,
        port: u16,
        pair: &Pair,
        roots: &str,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let config = verify::server_config(&pair.chain, &pair.key, roots, &[b"http/1.1"])?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let network = network.to_owned();
        let thread = std::thread::spawn(move || {
            let served = netns::within(&network, || async {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
                ready.send(Ok(())).ok();
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, acceptor, clients) => {}
                }
                Ok(())
            });
            if let Err(error) = served {
                ready.send(Err(error)).ok();
            }
        });
        is_ready.recv().context("the server's thread")??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, clients: Clients) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tasks.spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if clients == Clients::Known && stream.get_ref().1.peer_certificates().is_none() {
                return;
            }
            answer(&mut stream).await.ok();
            stream.shutdown().await.ok();
        });
    }
}

/// Answers one request.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut head = Vec::<u8>::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => head.extend(&buffer[..count]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await
}

/// A client that shows a certificate and takes any of the server.
pub(crate) fn client(pair: &Pair) -> anyhow::Result<ClientConfig> {
    let mut config = verify::unverified_client_config(verify::Proof::Key, &[])?;
    let shown = verify::client_config(&pair.chain, Some((&pair.chain, &pair.key)), &[])?;
    // Whoever the server says it trusts.
    config.client_auth_cert_resolver = shown.client_auth_cert_resolver;
    Ok(config)
}

/// Sends bytes over TLS and returns what comes back first; nothing when the
/// server ends the connection.
pub(crate) fn exchange(
    network: &str,
    address: (Ipv4Addr, u16),
    config: &ClientConfig,
    bytes: &[u8],
) -> anyhow::Result<String> {
    let address = SocketAddr::from(address);
    netns::within(network, || async {
        let exchange = async {
            let stream = TcpStream::connect(address).await?;
            let connector = TlsConnector::from(Arc::new(config.clone()));
            let name =
                ServerName::try_from("server.default.svc.cluster.local").map_err(std::io::Error::other)?;
            let mut stream = connector.connect(name, stream).await?;
            stream.write_all(bytes).await?;
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..count]).into_owned())
        };
        let answer = tokio::time::timeout(LIMIT, exchange).await;
        ensure!(answer.is_ok(), "no answer within {LIMIT:?}");
        Ok(answer.ok().and_then(Result::ok).unwrap_or_default())
    })
}
