//! Connections to the control plane: TCP, TLS with roots and certificate that
//! are read anew each time, HTTP/2 with keepalive.

pub mod addresses;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper::body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use pki::certificate::Certificate;
use pki::key::PrivateKey;
use runtime::tasks::Tasks;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::certificates::{ClientPair, Endpoint, Security};
use crate::identity::stamp;
use crate::identity::told::Told;
use crate::unix::{FRAME, Spawner, WINDOW};

/// Time for name, connection and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a read from the network; TLS takes them apart in small pieces.
const READ: usize = 64 << 10;

/// How dead connections are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A connection without traffic is asked whether it is alive this often.
    pub interval: Duration,
    /// A connection that does not answer for this long is dead.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address leads nowhere.
    #[error("{address}: {source}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("{0}: no connection within {CONNECT_TIMEOUT:?}")]
    Timeout(String),
    /// The roots cannot be read.
    #[error("root certificates {}: {source}", path.display())]
    ReadRoots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The roots are none.
    #[error("root certificates {}: {source}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pki::verify::Error,
    },
    /// The name can be in no certificate.
    #[error("{0:?} is not a server name: set ISTIOD_SAN to the name of istiod's certificate")]
    ServerName(String),
    /// The server does not speak HTTP/2.
    #[error("{address}: {source}")]
    Http {
        /// The address.
        address: String,
        /// Why.
        source: hyper::Error,
    },
}

impl Error {
    /// The name is known and leads nowhere.
    pub(crate) fn no_address(endpoint: &Endpoint) -> Self {
        let source = io::Error::other("the name has no address");
        Self::Connect { address: endpoint.address.clone(), source }
    }
}

/// Opens a connection for requests with bodies of type `B`, to whichever of
/// the endpoint's addresses answers first; it closes when the sender and all
/// its streams are gone.
///
/// # Errors
/// When there is none within five seconds.
pub async fn connect<B>(endpoint: &Endpoint, tasks: &Tasks) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let timeout = |_| Error::Timeout(endpoint.address.clone());
    tokio::time::timeout(CONNECT_TIMEOUT, open(endpoint, tasks)).await.map_err(timeout)?
}

/// The same as [`connect`] with one of the endpoint's addresses, for streams
/// with much to read.
///
/// # Errors
/// When there is no connection within five seconds.
pub async fn connect_to<B>(
    endpoint: &Endpoint,
    address: SocketAddr,
    keepalive: Keepalive,
    tasks: &Tasks,
) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |source| Error::Connect { address: format!("{} ({address})", endpoint.address), source };
    let open = async {
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        secure(endpoint, tasks, stream, keepalive).await
    };
    let timeout = |_| Error::Timeout(format!("{} ({address})", endpoint.address));
    tokio::time::timeout(CONNECT_TIMEOUT, open).await.map_err(timeout)?
}

async fn open<B>(endpoint: &Endpoint, tasks: &Tasks) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let found = addresses::resolve(endpoint).await?;
    let dial = |address| connect_to(endpoint, address, Keepalive::default(), tasks);
    let first = addresses::first(found, dial).await.unwrap_or_else(|| Err(Error::no_address(endpoint)));
    Ok(first?.1)
}

async fn secure<B>(
    endpoint: &Endpoint,
    tasks: &Tasks,
    stream: TcpStream,
    keepalive: Keepalive,
) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |source| Error::Connect { address: endpoint.address.clone(), source };
    // Requests are small and waited for.
    stream.set_nodelay(true).map_err(failed)?;
    let stream = BufReader::with_capacity(READ, stream);
    match &endpoint.security {
        Security::Plaintext => handshake(endpoint, tasks, stream, keepalive).await,
        Security::Tls { roots, .. } => {
            let read = |source| Error::ReadRoots { path: roots.clone(), source };
            let text = std::fs::read_to_string(roots).map_err(read)?;
            let client = client_certificate(endpoint, SystemTime::now());
            let client = client.as_ref().map(|(chain, key)| (chain.as_str(), key));
            let config = pki::verify::client_config(&text, client, &[b"h2"])
                .map_err(|source| Error::Roots { path: roots.clone(), source })?;
            let name = ServerName::try_from(endpoint.server_name.clone())
                .map_err(|_| Error::ServerName(endpoint.server_name.clone()))?;
            let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
            handshake(endpoint, tasks, stream.map_err(failed)?, keepalive).await
        }
    }
}

async fn handshake<B>(
    endpoint: &Endpoint,
    tasks: &Tasks,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    keepalive: Keepalive,
) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = Builder::new(Spawner(tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| Error::Http { address: endpoint.address.clone(), source })?;
    drop(tasks.spawn("istiod connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to istiod");
        }
    }));
    Ok(sender)
}

/// The origin of requests to an endpoint.
#[must_use]
pub fn origin(endpoint: &Endpoint) -> http::Uri {
    let scheme = if endpoint.security == Security::Plaintext { "http" } else { "https" };
    let name = &endpoint.server_name;
    let host = if name.contains(':') { format!("[{name}]") } else { name.clone() };
    let built = http::Uri::builder().scheme(scheme).authority(host).path_and_query("/").build();
    built.unwrap_or_else(|_| http::Uri::from_static("https://istiod.istio-system.svc/"))
}

/// The warning about a certificate that cannot be shown; one for all
/// connections, because they have it from the same files.
static UNUSABLE: Told = Told::new();

/// Why the agent's own certificate is not shown.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Chain { path: PathBuf, source: pki::certificate::Error },
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: pki::key::Error },
    #[error("{} has expired at {at}", path.display())]
    Expired { path: PathBuf, at: String },
    #[error("{} and {}: {source}", chain.display(), key.display())]
    Mismatch { chain: PathBuf, key: PathBuf, source: pki::verify::Error },
}

/// What the agent shows of itself to that server, read from its files now;
/// `None` when it has nothing that the server would accept, of which there is
/// one warning per reason.
#[must_use]
pub fn client_certificate(endpoint: &Endpoint, now: SystemTime) -> Option<(String, PrivateKey)> {
    let Security::Tls { client: Some(pair), .. } = &endpoint.security else { return None };
    match read_pair(pair, now) {
        Ok(found) => {
            UNUSABLE.clear();
            Some(found)
        }
        Err(error) => {
            let text = error.to_string();
            if UNUSABLE.is_new(&text) {
                tracing::warn!(target: "security", error = text, "istiod is asked without a certificate, with a token only");
            }
            None
        }
    }
}

fn read_pair(pair: &ClientPair, now: SystemTime) -> Result<(String, PrivateKey), Unusable> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|source| Unusable::Read { path: path.clone(), source })
    };
    let (chain, key) = (read(&pair.chain)?, zeroize::Zeroizing::new(read(&pair.key)?));
    let at = |source| Unusable::Chain { path: pair.chain.clone(), source };
    let certificates = Certificate::all_from_pem(&chain).map_err(at)?;
    let leaf = certificates.first().ok_or_else(|| at(pki::certificate::Error::None))?;
    if leaf.not_after <= now {
        return Err(Unusable::Expired { path: pair.chain.clone(), at: stamp(leaf.not_after) });
    }
    let key =
        PrivateKey::from_pem(&key).map_err(|source| Unusable::Key { path: pair.key.clone(), source })?;
    pki::verify::check_pair(&chain, &key).map_err(|source| Unusable::Mismatch {
        chain: pair.chain.clone(),
        key: pair.key.clone(),
        source,
    })?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use pki::issuer::Issuer;

    use super::*;

    #[test]
    fn only_a_certificate_that_servers_accept_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pair = ClientPair { chain: at("chain"), key: at("key") };
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let (issuer, key) = Issuer::self_signed("a", hour, now).unwrap();
        let (_, other) = Issuer::self_signed("b", hour, now).unwrap();
        let reason = |now| read_pair(&pair, now).map(|_| ()).unwrap_err().to_string();
        assert!(reason(now).contains("chain: No such file"), "{}", reason(now));
        std::fs::write(at("chain"), issuer.root_pem()).unwrap();
        assert!(reason(now).contains("key: No such file"), "{}", reason(now));
        std::fs::write(at("key"), other.as_str()).unwrap();
        assert!(reason(now).contains("key: "), "{}", reason(now));
        std::fs::write(at("key"), key.as_str()).unwrap();
        assert!(read_pair(&pair, now).is_ok());
        assert!(reason(now + 2 * hour).contains("chain has expired at "), "{}", reason(now + 2 * hour));
        std::fs::write(at("chain"), "nothing").unwrap();
        assert!(reason(now).contains("no certificate found"), "{}", reason(now));
    }
}
