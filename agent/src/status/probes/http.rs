//! HTTP requests to the application, with the kubelet's rules for redirections.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use runtime::tasks::Tasks;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::tls;
use crate::status::dial;
use crate::status::url::{Url, has_scheme};
use crate::unix::Spawner;

/// Longest body that is passed on; the rest is cut off.
const MAX_BODY: usize = 10 << 10;
/// Redirections that are followed.
const MAX_REDIRECTS: usize = 10;
/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The application did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] dial::Error),
    /// No TLS.
    #[error("TLS with {url}: {source}")]
    Tls {
        /// Where to.
        url: Url,
        /// Why.
        source: std::io::Error,
    },
    /// The settings of TLS.
    #[error(transparent)]
    Settings(#[from] pki::verify::Error),
    /// The request failed.
    #[error("{url}: {source}")]
    Http {
        /// Where to.
        url: Url,
        /// Why.
        source: hyper::Error,
    },
    /// No request can be made of that.
    #[error("{url}: {source}")]
    Request {
        /// Where to.
        url: Url,
        /// Why.
        source: http::Error,
    },
    /// The redirection leads nowhere.
    #[error("{url}: redirected to {location:?}, which is no address")]
    Location {
        /// Where from.
        url: Url,
        /// Where to.
        location: String,
    },
    /// One redirection after the other.
    #[error("{0}: stopped after {MAX_REDIRECTS} redirects")]
    Redirects(Url),
}

/// Where the application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// At an address of this pod.
    Pod(IpAddr),
    /// In this pod, under the name localhost.
    Localhost,
    /// At a host that may be another one.
    Other(String),
}

impl Destination {
    /// The name that stands in addresses.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Pod(ip) => ip.to_string(),
            Self::Localhost => "localhost".into(),
            Self::Other(host) => host.clone(),
        }
    }

    /// Connects to one of its ports.
    ///
    /// # Errors
    /// When nobody accepts.
    pub async fn dial(&self, port: u16) -> Result<TcpStream, dial::Error> {
        match self {
            Self::Pod(ip) => dial::pod(*ip, port).await,
            Self::Localhost => dial::localhost(port).await,
            Self::Other(host) => dial::other(host, port).await,
        }
    }
}

/// What the application said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status; what is left of redirections counts as 200, as with the kubelet.
    pub status: StatusCode,
    /// The beginning of the body.
    pub body: Bytes,
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// Sends requests to one destination.
pub struct Client {
    destination: Destination,
    http2: bool,
    tasks: Tasks,
    /// The connection of the last request, when it is kept.
    kept: Option<Mutex<Option<(Url, Sender)>>>,
}

impl Client {
    /// A client; nothing is connected yet.
    #[must_use]
    pub fn new(destination: Destination, http2: bool, keepalive: bool, tasks: Tasks) -> Self {
        Self { destination, http2, tasks, kept: keepalive.then(Mutex::default) }
    }

    /// Asks and follows redirections on the same host.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(
        &self,
        is_tls: bool,
        port: u16,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, Error> {
        let mut url = Url { is_tls, host: self.destination.host(), port, path: path.to_owned() };
        let mut headers = headers.clone();
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        for _ in 0..=MAX_REDIRECTS {
            let (response, sender) = self.send(&url, &headers).await?;
            let (head, mut body) = response.into_parts();
            let target = match target(&url, head.status, &head.headers)? {
                Some(next) if next.host == url.host => next,
                Some(_) => return Ok(Answer { status: StatusCode::OK, body: Bytes::new() }),
                None if head.status.is_redirection() => {
                    return Ok(Answer { status: StatusCode::OK, body: Bytes::new() });
                }
                None => {
                    let bytes = beginning(&mut body)
                        .await
                        .map_err(|source| Error::Http { url: url.clone(), source })?;
                    self.keep(url, sender, &body);
                    return Ok(Answer { status: head.status, body: bytes });
                }
            };
            // With an address of its own the redirection names the host too.
            if head.headers.get(LOCATION).is_some_and(is_absolute) {
                headers.remove(HOST);
            }
            url = target;
        }
        Err(Error::Redirects(url))
    }

    async fn send(&self, url: &Url, headers: &HeaderMap) -> Result<(Response<Incoming>, Sender), Error> {
        let failed = |source| Error::Http { url: url.clone(), source };
        let mut sender = match self.take(url).await {
            Some(sender) => sender,
            None => self.connect(url).await?,
        };
        let request = |absolute| {
            self.request(url, headers, absolute).map_err(|source| Error::Request { url: url.clone(), source })
        };
        let response = match &mut sender {
            Sender::One(sender) => sender.send_request(request(false)?).await.map_err(failed)?,
            Sender::Two(sender) => sender.send_request(request(true)?).await.map_err(failed)?,
        };
        Ok((response, sender))
    }

    async fn connect(&self, url: &Url) -> Result<Sender, Error> {
        let failed = |source| Error::Http { url: url.clone(), source };
        let stream = self.destination.dial(url.port).await?;
        if !url.is_tls {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            drop(self.tasks.spawn("probe", connection));
            return Ok(Sender::One(sender));
        }
        let bad = |source| Error::Tls { url: url.clone(), source };
        let name =
            ServerName::try_from(url.host.clone()).map_err(|error| bad(std::io::Error::other(error)))?;
        let stream = tls::connector(self.http2)?.connect(name, stream).await.map_err(bad)?;
        if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
            let spawner = Spawner(self.tasks.clone());
            let (sender, connection) =
                http2::handshake(spawner, TokioIo::new(stream)).await.map_err(failed)?;
            drop(self.tasks.spawn("probe", connection));
            Ok(Sender::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            drop(self.tasks.spawn("probe", connection));
            Ok(Sender::One(sender))
        }
    }

    fn request(&self, url: &Url, headers: &HeaderMap, absolute: bool) -> http::Result<Request<Empty<Bytes>>> {
        let host = match headers.get(HOST) {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(url.authority())?,
        };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.headers_mut() = headers.clone();
        if absolute {
            // HTTP/2 has it in the address.
            request.headers_mut().remove(HOST);
            *request.uri_mut() = Uri::builder()
                .scheme("https")
                .authority(host.as_bytes())
                .path_and_query(url.path.as_str())
                .build()?;
        } else {
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = Uri::builder().path_and_query(url.path.as_str()).build()?;
            if self.kept.is_none() {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Ok(request)
    }

    /// The connection that was kept, if it goes there and still works.
    async fn take(&self, url: &Url) -> Option<Sender> {
        let kept = self.kept.as_ref()?;
        let (old, mut sender) = kept.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let works = match &mut sender {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        };
        (works && (old.is_tls, old.port) == (url.is_tls, url.port)).then_some(sender)
    }

    /// Keeps a connection whose answer was read to the end.
    fn keep(&self, url: Url, sender: Sender, body: &Incoming) {
        if let Some(kept) = &self.kept
            && hyper::body::Body::is_end_stream(body)
        {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((url, sender));
        }
    }
}

/// Where a redirection leads to; `None` when it is none, or does not say.
fn target(url: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, Error> {
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) || location.is_empty() {
        return Ok(None);
    }
    let location = String::from_utf8_lossy(location.as_bytes());
    let next = url.follow(&location);
    next.map(Some).ok_or_else(|| Error::Location { url: url.clone(), location: location.into_owned() })
}

fn is_absolute(location: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(location.as_bytes());
    text.starts_with("//") || has_scheme(&text)
}

/// The beginning of a body; what does not fit stays unread.
async fn beginning(body: &mut Incoming) -> Result<Bytes, hyper::Error> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let left = MAX_BODY - all.len();
            all.extend_from_slice(data.get(..left).unwrap_or(&data));
            if data.len() > left {
                break;
            }
        }
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests;
