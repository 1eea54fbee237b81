//! The server of the case tables: it takes whatever comes to a port, and
//! answers with what it saw.

mod answer;
mod forward;
pub mod proxied;
mod recorded;
pub mod stream;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub use answer::METRICS;
use answer::Seen;
use recorded::Recorded;

/// A port of the server: the names and numbers of Istio's own test server, so
/// that its cases can be told in its words.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name in a Service.
    pub name: &'static str,
    /// Number in a Service.
    pub service: u16,
    /// Number at the workload.
    pub workload: u16,
    /// What is special about it.
    pub kind: Kind,
}

/// What is special about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Usual,
    /// The server speaks first.
    First,
    /// Only at the workload's own address.
    Instance,
    /// Only at the loopback address.
    Localhost,
    /// A proxy that connects to where it is told to.
    Forward,
}

const fn port(name: &'static str, service: u16, workload: u16, kind: Kind) -> Port {
    Port { name, service, workload, kind }
}

/// All of them. Those of a forward proxy are at the same number everywhere.
pub const PORTS: &[Port] = &[
    port("http", 80, 18080, Kind::Usual),
    port("auto-http", 81, 18081, Kind::Usual),
    port("http-instance", 82, 18082, Kind::Instance),
    port("http-localhost", 84, 18084, Kind::Localhost),
    port("http2", 85, 18085, Kind::Usual),
    port("tcp-for-http", 86, 18086, Kind::Usual),
    port("https", 443, 18443, Kind::Usual),
    port("grpc", 7070, 17070, Kind::Usual),
    port("auto-grpc", 7071, 17071, Kind::Usual),
    port("tcp", 9090, 19090, Kind::Usual),
    port("tcp-server", 9091, 16060, Kind::First),
    port("auto-tcp", 9092, 19091, Kind::Usual),
    port("auto-tcp-server", 9093, 16061, Kind::First),
    port("auto-https", 9443, 19443, Kind::Usual),
    port("http-connect", 3128, 3128, Kind::Forward),
    port("http-connect-tls", 4128, 4128, Kind::Forward),
    port("http2-connect", 5128, 5128, Kind::Forward),
    port("http2-connect-tls", 6128, 6128, Kind::Forward),
];
/// Ports of the workload that no Service names.
const UNNAMED: [u16; 2] = [18083, 19092];
/// What a server says that speaks first.
pub const GREETING: &str = "welcome\n";

/// Serves until the process ends: at all ports, those of [`PORTS`] by their
/// Service's number too if it stands for something outside of the mesh.
///
/// # Errors
/// When it cannot listen.
pub async fn run(name: &str, address: Ipv4Addr, is_outside: bool) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let server = Arc::new(Server { name: name.to_owned(), acceptor: acceptor(name)?, tasks: tasks.clone() });
    let mut listeners = vec![(Ipv4Addr::UNSPECIFIED, crate::app::PORT, Kind::Usual)];
    listeners.extend(UNNAMED.map(|port| (Ipv4Addr::UNSPECIFIED, port, Kind::Usual)));
    for Port { service, workload, kind, .. } in PORTS.iter().copied() {
        let at = match kind {
            Kind::Instance => address,
            Kind::Localhost => Ipv4Addr::LOCALHOST,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        listeners.push((at, workload, kind));
        if is_outside && service != workload {
            listeners.push((at, service, kind));
        }
    }
    for (at, port, kind) in listeners {
        let listener = TcpListener::bind((at, port)).await.with_context(|| format!("port {port}"))?;
        let server = server.clone();
        tasks.spawn("listener", async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (tasks, server) = (server.tasks.clone(), server.clone());
                tasks.spawn("connection", async move { server.connection(stream, peer, kind).await.ok() });
            }
        });
    }
    std::future::pending().await
}

/// A certificate that nobody trusts.
fn acceptor(name: &str) -> anyhow::Result<TlsAcceptor> {
    let (now, year) = (SystemTime::now(), Duration::from_secs(365 * 86_400));
    let (issuer, _) = Issuer::self_signed(name, year, now)?;
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let chain = issuer.issue(&Csr::of_key(&key)?, &[San::Dns(name.to_owned())], year, now)?;
    let config = pki::verify::server_config(&chain.concat(), &key, issuer.root_pem(), &[b"h2", b"http/1.1"])?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Server {
    name: String,
    acceptor: TlsAcceptor,
    tasks: Tasks,
}

impl Server {
    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr, kind: Kind) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let (name, local) = (self.name.clone(), stream.local_addr()?);
        let mut seen = Seen { name, local, peer, sni: None, proxied: None };
        if kind == Kind::First {
            stream.write_all(GREETING.as_bytes()).await?;
        }
        seen.proxied = proxied::take(&mut stream).await?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(());
        }
        if first[0] != HANDSHAKE {
            return self.plain(stream, seen, kind, first[0]).await;
        }
        let stream = self.acceptor.accept(stream).await?;
        seen.sni = Some(stream.get_ref().1.server_name().unwrap_or_default().to_owned());
        self.plain(stream, seen, kind, b'G').await
    }

    async fn plain<S>(&self, mut stream: S, seen: Seen, kind: Kind, first: u8) -> anyhow::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Methods of HTTP are of capital letters; what we send as plain bytes is not.
        if !first.is_ascii_uppercase() {
            let mut bytes = vec![0; 1024];
            let count = stream.read(&mut bytes).await?;
            stream.write_all(&seen.of_bytes(&bytes[..count])).await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        let (stream, record) = Recorded::new(stream);
        let (seen, tasks) = (Arc::new(seen), self.tasks.clone());
        let service = service_fn(move |request| {
            let (seen, record, tasks) = (seen.clone(), record.clone(), tasks.clone());
            async move {
                if kind == Kind::Forward {
                    return Ok(forward::answer(request, &tasks).await);
                }
                if request.uri().path() == stream::PATH {
                    return Ok(stream::answer(request, &tasks));
                }
                let answer = seen.answer(&request, &record);
                // A server of gRPC reads what it is asked before it answers.
                if answer::is_grpc(request.headers()) {
                    request.into_body().collect().await.ok();
                }
                answer
            }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        served.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// First byte of TLS (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
