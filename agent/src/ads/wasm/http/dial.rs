//! Connections to addresses that the guard has seen.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;

use super::super::guard::Refused;
use super::{Client, Error, tls, url};

/// Time for a connection to one address; there may be others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// Opens a connection and tells the address of its peer.
    pub(super) async fn open(
        &self,
        url: &Uri,
        insecure: bool,
        from: Option<IpAddr>,
    ) -> Result<(TokioIo<Box<dyn Stream>>, IpAddr), Error> {
        let host = url::host(url);
        let addresses = self.addresses(host, url::port(url), from).await?;
        let shown = url::host_and_port(url);
        let stream =
            connect(&addresses).await.map_err(|source| Error::Connect { host: shown.clone(), source })?;
        let peer = stream.peer_addr().map_err(|source| Error::Connect { host: shown.clone(), source })?.ip();
        if url.scheme_str() != Some("https") {
            return Ok((TokioIo::new(Box::new(stream)), peer));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Url(url::shown(url)))?;
        let config = if insecure { tls::unverified()? } else { tls::verified(self.roots.as_deref())? };
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(stream) => Ok((TokioIo::new(Box::new(stream)), peer)),
            Err(source) if is_plain(&source) => Err(Error::NoTls(shown)),
            Err(source) => Err(Error::Tls { host: shown, source }),
        }
    }

    /// The addresses of a name that may be connected to.
    ///
    /// # Errors
    /// When there is none.
    pub(in super::super) async fn addresses(
        &self,
        host: &str,
        port: u16,
        from: Option<IpAddr>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let failed = |source| Error::Resolve { host: host.to_owned(), source };
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect(),
        };
        let mut refused: Option<Refused> = None;
        let mut fine = Vec::new();
        for address in found {
            match self.guard.check(address.ip(), from) {
                Ok(()) => fine.push(address),
                Err(reason) => refused = Some(reason),
            }
        }
        match refused {
            Some(refused) if fine.is_empty() => Err(Error::Refused { host: host.to_owned(), refused }),
            _ => Ok(fine),
        }
    }
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Whether a handshake failed because the peer does not speak TLS.
fn is_plain(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}
