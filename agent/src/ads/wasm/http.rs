//! A small HTTP client for modules: every connection is checked by the guard,
//! redirects are followed by hand and checked as well, what fails for a moment
//! is tried again.

mod dial;
mod tls;
mod url;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use tracing::debug;

use super::guard::{Guard, Refused, is_private};
pub(super) use url::{host, shown};

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Waits between tries, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The text is no URL that can be asked.
    #[error("{0:?} is not an http or https URL")]
    Url(String),
    /// The name leads nowhere.
    #[error("{host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The address is not one to fetch from.
    #[error("{host}: refused: {refused}")]
    Refused {
        /// The name.
        host: String,
        /// Why.
        refused: Refused,
    },
    /// The server leads where it must not.
    #[error("{from} leads to {to}: {reason}")]
    Lead {
        /// The server.
        from: String,
        /// Where to.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is no connection.
    #[error("connect to {host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server speaks plain HTTP.
    #[error("{0} does not speak TLS")]
    NoTls(String),
    /// TLS does not come about.
    #[error("TLS with {host}: {source}")]
    Tls {
        /// The server.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The roots cannot be read.
    #[error("root certificates: {0}")]
    Roots(String),
    /// The exchange broke off.
    #[error("{url}: {source}")]
    Http {
        /// Where.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer is another one.
    #[error("{url}: {status}{detail}")]
    Status {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the server says of it.
        detail: String,
    },
    /// The answer is too large or breaks off.
    #[error("{url}: {reason}")]
    Body {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("{url}: no answer within {limit:?}")]
    Timeout {
        /// Where.
        url: String,
        /// The limit.
        limit: Duration,
    },
}

impl Error {
    /// Whether another try may end better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
                    || status.is_server_error()
                        && !matches!(
                            *status,
                            StatusCode::NOT_IMPLEMENTED
                                | StatusCode::HTTP_VERSION_NOT_SUPPORTED
                                | StatusCode::NETWORK_AUTHENTICATION_REQUIRED
                        )
            }
            Self::Resolve { .. } | Self::Connect { .. } | Self::Http { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// GET is led on by redirects, others are not.
    pub(super) method: Method,
    /// Where.
    pub(super) url: Uri,
    /// Headers; `authorization` stays with the server that is asked.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
    /// The server's certificate is not verified.
    pub(super) insecure: bool,
    /// The server must not lead to private addresses on other hosts.
    pub(super) strict: bool,
    /// Who led there.
    pub(super) from: Option<IpAddr>,
}

impl Ask {
    /// A plain GET.
    pub(super) fn get(url: Uri, insecure: bool) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            insecure,
            strict: false,
            from: None,
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The answer.
    pub(super) response: Response<Incoming>,
    /// Where it came from in the end.
    pub(super) url: Uri,
    /// Address of the server that was asked first.
    pub(super) peer: IpAddr,
}

impl Answer {
    /// The whole body.
    ///
    /// # Errors
    /// When it is longer than `limit` or breaks off.
    pub(super) async fn text(self, limit: usize) -> Result<Bytes, Error> {
        let url = shown(&self.url);
        let body = Limited::new(self.response.into_body(), limit).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| Error::Body { url, reason: error.to_string() })
    }

    /// The answer if its status is 200.
    ///
    /// # Errors
    /// With the beginning of what the server says otherwise.
    pub(super) async fn ok(self) -> Result<Self, Error> {
        let status = self.response.status();
        if status == StatusCode::OK {
            return Ok(self);
        }
        let url = shown(&self.url);
        let text = self.text(1 << 16).await.unwrap_or_default();
        let line: String = String::from_utf8_lossy(&text)
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .take(200)
            .collect();
        let detail = if line.trim().is_empty() { String::new() } else { format!(": {}", line.trim()) };
        Err(Error::Status { url, status, detail })
    }
}

/// The client. It keeps no connections: modules are rare.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Decides about addresses.
    pub(super) guard: Guard,
    /// Runs the connections.
    pub(super) tasks: Tasks,
    /// File with roots; those of the system when `None`.
    pub(super) roots: Option<PathBuf>,
    /// Time of one try.
    pub(super) timeout: Duration,
    /// Tries.
    pub(super) attempts: u32,
}

impl Client {
    /// Tries `once` until it works, cannot work, or was tried often enough.
    ///
    /// # Errors
    /// That of the last try.
    pub(super) async fn retry<T, E, F>(&self, url: &Uri, mut once: impl FnMut() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Error> + AsHttp,
    {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut attempt = 1;
        loop {
            let result = tokio::time::timeout(self.timeout, once()).await;
            let result = result
                .unwrap_or_else(|_| Err(Error::Timeout { url: shown(url), limit: self.timeout }.into()));
            match result {
                Err(error) if attempt < self.attempts && error.http().is_some_and(Error::may_pass) => {
                    debug!(target: "wasm", attempt, error = ?error.http(), "trying again");
                }
                result => return result,
            }
            attempt += 1;
            backoff.sleep().await;
        }
    }

    /// Sends a request, follows redirects, and returns the head of the answer.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, Error> {
        let mut url = ask.url.clone();
        let mut headers = ask.headers.clone();
        if let Some(basic) = url::authorization(&url) {
            headers.entry(AUTHORIZATION).or_insert(basic);
        }
        let mut first = None;
        for _ in 0..=REDIRECTS {
            let from = ask.from.or(first);
            let (response, peer) = self.exchange(ask, &url, &headers, from).await?;
            let asked = *first.get_or_insert(peer);
            let next = match response.headers().get(LOCATION) {
                Some(next) if ask.method == Method::GET && is_redirect(response.status()) => next,
                _ => return Ok(Answer { response, url, peer: asked }),
            };
            let next = url::join(&url, next)
                .ok_or_else(|| Error::Url(String::from_utf8_lossy(next.as_bytes()).into_owned()))?;
            check_lead(ask, &url, &next)?;
            if (next.scheme(), next.authority()) != (url.scheme(), url.authority()) {
                headers.remove(AUTHORIZATION);
            }
            debug!(target: "wasm", from = shown(&url), to = shown(&next), "redirect");
            url = next;
        }
        let reason = "too many redirects";
        Err(Error::Lead { from: shown(&ask.url), to: shown(&url), reason })
    }

    async fn exchange(
        &self,
        ask: &Ask,
        url: &Uri,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<(Response<Incoming>, IpAddr), Error> {
        let failed = |source| Error::Http { url: shown(url), source };
        let (stream, peer) = self.open(url, ask.insecure, from).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
        drop(self.tasks.spawn("wasm connection", connection));
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| Error::Url(shown(url)))?;
        *request.headers_mut() = headers.clone();
        let name = url::host_and_port(url);
        let name = HeaderValue::from_str(&name).map_err(|_| Error::Url(shown(url)))?;
        request.headers_mut().insert(HOST, name);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("istio-agent"));
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok((response, peer))
    }
}

/// An error that may be one of the exchange.
pub(super) trait AsHttp {
    /// That error.
    fn http(&self) -> Option<&Error>;
}

impl AsHttp for Error {
    fn http(&self) -> Option<&Error> {
        Some(self)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether a server may lead from `from` to `to`; addresses are checked when
/// they are connected to.
///
/// # Errors
/// Why not.
pub(super) fn check_lead(ask: &Ask, from: &Uri, to: &Uri) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Lead { from: shown(from), to: shown(to), reason });
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") && !ask.insecure {
        return refuse("plain HTTP in place of TLS; name the server in WASM_INSECURE_REGISTRIES to allow it");
    }
    if !ask.strict || host(from) == host(to) {
        return Ok(());
    }
    match host(to).parse::<IpAddr>() {
        Ok(ip) if is_private(ip) => refuse("a private address"),
        _ if host(to) == "localhost" => refuse("this pod itself"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
