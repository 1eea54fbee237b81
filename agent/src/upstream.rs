//! Connections to the control plane: TCP, TLS with roots that are read anew
//! each time, HTTP/2 with keepalive.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::tasks::Tasks;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Endpoint, Security};
use crate::unix::{FRAME, Spawner, WINDOW};

/// Time for name, connection and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without traffic is asked whether it is alive this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A connection that does not answer for this long is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Opens a connection for requests with bodies of type `B`; it closes when the
/// sender and all its streams are gone.
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

async fn open<B>(endpoint: &Endpoint, tasks: &Tasks) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |source| Error::Connect { address: endpoint.address.clone(), source };
    // A literal address needs no resolver, which costs a thread.
    let stream = match endpoint.address.parse::<SocketAddr>() {
        Ok(address) => TcpStream::connect(address).await,
        Err(_) => TcpStream::connect(&endpoint.address).await,
    };
    let stream = stream.map_err(failed)?;
    // Requests are small and waited for.
    stream.set_nodelay(true).map_err(failed)?;
    match &endpoint.security {
        Security::Plaintext => handshake(endpoint, tasks, stream).await,
        Security::Tls { roots } => {
            let read = |source| Error::ReadRoots { path: roots.clone(), source };
            let text = std::fs::read_to_string(roots).map_err(read)?;
            let config = pki::verify::client_config(&text, None, &[b"h2"])
                .map_err(|source| Error::Roots { path: roots.clone(), source })?;
            let name = ServerName::try_from(endpoint.server_name.clone())
                .map_err(|_| Error::ServerName(endpoint.server_name.clone()))?;
            let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
            handshake(endpoint, tasks, stream.map_err(failed)?).await
        }
    }
}

async fn handshake<B>(
    endpoint: &Endpoint,
    tasks: &Tasks,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
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
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
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

/// The `authorization` header for the token in that file, read anew for every
/// call because the kubelet replaces it. `None` without a token: the server may
/// know the caller otherwise.
#[must_use]
pub fn authorization(token: &std::path::Path) -> Option<HeaderValue> {
    let text = match std::fs::read_to_string(token) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) => {
            tracing::warn!(path = %token.display(), %error, "no token: istiod is asked without one");
            return None;
        }
    };
    let value = zeroize::Zeroizing::new(format!("{}{}", names::header::BEARER, text.trim()));
    match HeaderValue::from_str(&value) {
        Ok(mut header) => {
            header.set_sensitive(true);
            Some(header)
        }
        Err(_) => {
            tracing::warn!(path = %token.display(), "the file holds no token: istiod is asked without one");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_trimmed_and_optional() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        assert!(authorization(&file).is_none());
        std::fs::write(&file, "abc\n").unwrap();
        let header = authorization(&file).unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer abc");
        assert_eq!(format!("{header:?}"), "Sensitive");
        std::fs::write(&file, "a\nb").unwrap();
        assert!(authorization(&file).is_none());
    }
}
