//! A small HTTP client for keys: bounded in time and size, every connection is
//! checked by the guard, redirects are followed by hand and checked as well.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pilot::snapshot::jwt::DISCOVERY;
use pki::verify::{Proof, client_config, unverified_client_config};
use runtime::tasks::Tasks;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::guard::{Guard, Refused};

/// Longest answer.
const MAX_BODY: usize = 1 << 20;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Files with the roots that the system trusts, and one with further ones.
const ROOTS: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
];
const EXTRA_ROOTS: &str = "/cacerts/extra.pem";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no URI that can be asked.
    #[error("{0:?} is not an http or https URI")]
    Uri(String),
    /// The name leads nowhere.
    #[error("{host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The address is not one to ask.
    #[error("{host}: refused: {refused}")]
    Refused {
        /// The name.
        host: String,
        /// Why.
        refused: Refused,
    },
    /// There is no connection.
    #[error("{host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The roots cannot be used.
    #[error("root certificates: {0}")]
    Roots(String),
    /// The exchange broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Another answer than keys.
    #[error("status {0}")]
    Status(StatusCode),
    /// A redirect that is not followed.
    #[error("is led to {0}, which is not followed")]
    Lead(String),
    /// The answer is too large or breaks off.
    #[error("body: {0}")]
    Body(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The discovery document names no keys.
    #[error("the discovery document has no jwks_uri")]
    Discovery,
    /// No keys that Envoy could use.
    #[error("the key set {0}")]
    Keys(#[from] config::jwks::Error),
}

/// The client. It keeps no connections: keys are fetched rarely.
#[derive(Clone, Debug)]
pub struct Client {
    /// Decides about addresses.
    pub(crate) guard: Guard,
    /// Whether servers are not verified.
    pub(crate) insecure: bool,
    /// Runs the connections.
    pub(crate) tasks: Tasks,
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// Fetches the keys of a URI, or of the one that a discovery document names.
    ///
    /// # Errors
    /// When there are none that can be used.
    pub(crate) async fn keys(&self, uri: &str, timeout: Duration) -> Result<String, Error> {
        let fetch = async {
            let text = self.get(uri).await?;
            let text = if uri.ends_with(DISCOVERY) {
                let document: serde_json::Value =
                    serde_json::from_str(&text).map_err(|_| Error::Discovery)?;
                let uri = document["jwks_uri"].as_str().ok_or(Error::Discovery)?;
                self.get(uri).await?
            } else {
                text
            };
            config::jwks::check(&text)?;
            Ok(text)
        };
        tokio::time::timeout(timeout, fetch).await.unwrap_or(Err(Error::Timeout(timeout)))
    }

    /// Fetches a text.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn get(&self, uri: &str) -> Result<String, Error> {
        let mut uri: Uri = uri.parse().map_err(|_| Error::Uri(shown(uri)))?;
        for _ in 0..=REDIRECTS {
            let response = self.exchange(&uri).await?;
            let status = response.status();
            if status.is_success() {
                let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
                let body = body.map_err(|error| Error::Body(error.to_string()))?.to_bytes();
                return String::from_utf8(body.into()).map_err(|_| Error::Body("is not UTF-8".into()));
            }
            let next = response.headers().get(LOCATION);
            let Some(next) = next.filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)) else {
                return Err(Error::Status(status));
            };
            uri = lead(&uri, next)?;
        }
        Err(Error::Lead("too many others".into()))
    }

    async fn exchange(&self, uri: &Uri) -> Result<http::Response<hyper::body::Incoming>, Error> {
        let stream = self.open(uri).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        drop(self.tasks.spawn("keys connection", connection));
        let bad = || Error::Uri(shown(&uri.to_string()));
        let mut request = Request::new(Empty::<Bytes>::new());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| bad())?;
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| bad())?);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("istiod"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        Ok(sender.send_request(request).await?)
    }

    async fn open(&self, uri: &Uri) -> Result<Box<dyn Stream>, Error> {
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Error::Uri(shown(&uri.to_string()))),
        };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.connect(&host, port).await?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| Error::Uri(shown(&uri.to_string())))?;
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let stream = connector.connect(name, stream).await;
        Ok(Box::new(stream.map_err(|source| Error::Connect { host, source })?))
    }

    /// Connects to an address that the guard has seen.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|source| Error::Resolve { host: host.into(), source })?;
        let addresses: Vec<SocketAddr> = found.collect();
        let mut error = None;
        for address in addresses {
            if let Err(refused) = self.guard.check(address.ip()) {
                error.get_or_insert(Error::Refused { host: host.into(), refused });
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(source) => error = Some(Error::Connect { host: host.into(), source }),
            }
        }
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        Err(error.unwrap_or_else(|| Error::Resolve { host: host.into(), source: none() }))
    }

    /// The roots are read each time: hardly ever, and they are large in memory.
    fn tls(&self) -> Result<ClientConfig, Error> {
        if self.insecure {
            return unverified_client_config(Proof::Key, &[])
                .map_err(|error| Error::Roots(error.to_string()));
        }
        let system = ROOTS.iter().map(Path::new).find(|path| path.is_file());
        let files = system.into_iter().chain([Path::new(EXTRA_ROOTS)]);
        // Bundles have comments in any encoding.
        let pem: String = files
            .filter_map(|file| std::fs::read(file).ok())
            .map(|pem| String::from_utf8_lossy(&pem).into_owned() + "\n")
            .collect();
        client_config(&pem, None, &[]).map_err(|error| Error::Roots(error.to_string()))
    }
}

/// Where a redirect leads: to the web, and never from TLS to plain HTTP.
fn lead(from: &Uri, location: &HeaderValue) -> Result<Uri, Error> {
    let text = String::from_utf8_lossy(location.as_bytes());
    let refuse = || Error::Lead(shown(&text));
    let text = text.split('#').next().unwrap_or_default();
    let next: Uri = if text.starts_with('/') && !text.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(text.parse().map_err(|_| refuse())?);
        Uri::from_parts(parts).map_err(|_| refuse())?
    } else {
        text.parse().map_err(|_| refuse())?
    };
    let is_down = from.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS);
    if is_down || next.scheme().is_none() { Err(refuse()) } else { Ok(next) }
}

/// A URI for messages: no password, and no query, which may hold a secret.
pub(crate) fn shown(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_in_the_web_and_in_tls() {
        let lead = |from: &str, to: &'static str| {
            lead(&from.parse().unwrap(), &HeaderValue::from_static(to)).ok().map(|uri| uri.to_string())
        };
        assert_eq!(lead("https://a:1/x?y", "/z?q#f").as_deref(), Some("https://a:1/z?q"));
        assert_eq!(lead("http://a/x", "https://b/z").as_deref(), Some("https://b/z"));
        assert_eq!(lead("http://a/x", "http://b/z").as_deref(), Some("http://b/z"));
        for to in ["http://b/z", "ftp://b/", "//b/z", "z", ""] {
            assert_eq!(lead("https://a/x", to), None, "{to}");
        }
    }

    #[test]
    fn secrets_in_uris_are_not_shown() {
        assert_eq!(shown("https://me:secret@a.example/keys?sig=secret"), "https://a.example/keys");
        assert_eq!(shown("https://a.example"), "https://a.example");
        assert_eq!(shown("nonsense"), "nonsense");
    }
}
