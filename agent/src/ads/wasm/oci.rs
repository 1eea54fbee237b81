//! Modules in registries of images: which layer of an image is the module, and
//! where its bytes are.

mod challenge;
mod credentials;
mod manifest;
mod reference;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::guard::is_private;
use super::http::{self as client, Answer, AsHttp, Ask, Client, check_lead};
use super::store;
use challenge::Challenge;
use credentials::Credentials;
pub(super) use credentials::credentials;
use manifest::Content;
pub(super) use manifest::Layer;
pub(super) use reference::{BadReference, Reference};

/// Largest manifest that is read, as the specification advises.
const MAX_MANIFEST: usize = 4 << 20;
/// Largest answer of a token server.
const MAX_TOKEN: usize = 64 << 10;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The exchange failed.
    #[error(transparent)]
    Http(#[from] client::Error),
    /// The registry speaks plain HTTP only.
    #[error("{0} speaks plain HTTP; name it in WASM_INSECURE_REGISTRIES to allow that")]
    Plaintext(String),
    /// The registry wants credentials that there are none of.
    #[error("{0} wants to know who asks; give the WasmPlugin an imagePullSecret with credentials for it")]
    Anonymous(String),
    /// The registry wants to know who asks in a way that is not known.
    #[error("{0} wants an authentication that is neither Basic nor Bearer")]
    Challenge(String),
    /// The token server's answer holds no token.
    #[error("{0} gives no token")]
    Token(String),
    /// The credentials cannot be read.
    #[error("{from}: {reason}")]
    Credentials {
        /// Where they are.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// The manifest cannot be used.
    #[error("manifest: {0}")]
    Manifest(String),
    /// The manifest is another one.
    #[error("the registry gives a manifest with digest sha256:{got} for sha256:{wanted}")]
    Digest {
        /// What came.
        got: String,
        /// What was asked for.
        wanted: String,
    },
    /// The layer with the module cannot be had.
    #[error("layer: {0}")]
    Blob(Box<Self>),
}

impl AsHttp for Error {
    fn http(&self) -> Option<&client::Error> {
        match self {
            Self::Http(error) => Some(error),
            Self::Blob(error) => error.http(),
            _ => None,
        }
    }
}

/// An image: what it is known as, and its module.
#[derive(Debug)]
pub(super) struct Image {
    /// Digest of the image's manifest, in hex.
    pub(super) digest: String,
    /// Digest of the index that led to it.
    index: Option<String>,
    /// The layer with the module.
    pub(super) layer: Layer,
}

impl Image {
    /// Whether that is a digest of it.
    pub(super) fn is_known_as(&self, digest: &str) -> bool {
        self.digest == digest || self.index.as_deref() == Some(digest)
    }
}

/// A repository of a registry, and what was learned of it.
#[derive(Debug)]
pub(super) struct Registry {
    client: Client,
    reference: Reference,
    credentials: Option<Credentials>,
    insecure: bool,
    session: Mutex<Session>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    is_plaintext: bool,
    authorization: Option<HeaderValue>,
}

impl Registry {
    /// The repository of `reference`.
    pub(super) fn new(
        client: Client,
        reference: Reference,
        credentials: Option<Credentials>,
        insecure: bool,
    ) -> Self {
        Self { client, reference, credentials, insecure, session: Mutex::default() }
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that the reference leads to.
    ///
    /// # Errors
    /// When there is none with a module.
    pub(super) async fn image(&self) -> Result<Image, Error> {
        let (digest, content) = self.manifest(&self.reference.identifier()).await?;
        if let Some(wanted) = self.reference.digest().filter(|wanted| *wanted != digest) {
            return Err(Error::Digest { got: digest, wanted: wanted.to_owned() });
        }
        let child = match content {
            Content::Image(layer) => return Ok(Image { digest, index: None, layer }),
            Content::Index(child) => child,
        };
        let (got, content) = self.manifest(&format!("sha256:{child}")).await?;
        if got != child {
            return Err(Error::Digest { got, wanted: child });
        }
        match content {
            Content::Image(layer) => Ok(Image { digest: child, index: Some(digest), layer }),
            Content::Index(_) => Err(Error::Manifest("an index within an index".into())),
        }
    }

    async fn manifest(&self, identifier: &str) -> Result<(String, Content), Error> {
        let url = self.url("manifests", identifier);
        let (media_type, body) = self
            .client
            .retry(&url, || async {
                let answer = self.request(&url, manifest::ACCEPT).await?;
                let media_type = answer.response.headers().get(CONTENT_TYPE).cloned();
                Ok::<_, Error>((media_type, answer.text(MAX_MANIFEST).await?))
            })
            .await?;
        let media_type = media_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content = manifest::read(media_type, &body).map_err(Error::Manifest)?;
        Ok((store::sha256(&body), content))
    }

    /// Where a layer is.
    pub(super) fn blob_url(&self, layer: &Layer) -> Uri {
        self.url("blobs", &format!("sha256:{}", layer.digest))
    }

    /// Begins to receive a layer.
    ///
    /// # Errors
    /// When the registry does not give it.
    pub(super) async fn blob(&self, url: &Uri) -> Result<Answer, Error> {
        self.request(url, "*/*").await
    }

    fn url(&self, what: &str, which: &str) -> Uri {
        let path = format!("/v2/{}/{what}/{which}", self.reference.path());
        let built = Uri::builder()
            .scheme(self.scheme())
            .authority(self.reference.host())
            .path_and_query(path)
            .build();
        // A reference consists of what a URL may hold.
        built.unwrap_or_default()
    }

    fn scheme(&self) -> &'static str {
        if self.session().is_plaintext { "http" } else { "https" }
    }

    /// A request of the registry, with whatever it takes to be answered.
    async fn request(&self, url: &Uri, accept: &'static str) -> Result<Answer, Error> {
        let answer = match self.send(url, accept, self.scheme()).await {
            Err(client::Error::NoTls(host)) => {
                self.allow_plaintext(host, url).await?;
                self.send_plaintext(url, accept).await?
            }
            // Registries on this machine mostly do without TLS.
            Err(error @ client::Error::Connect { .. }) if self.scheme() == "https" => {
                let host = self.reference.host().to_owned();
                match self.allow_plaintext(host, url).await {
                    Ok(()) => self.send_plaintext(url, accept).await.map_err(|_| error)?,
                    Err(_) => return Err(error.into()),
                }
            }
            result => result?,
        };
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer.ok().await?);
        }
        let challenges = challenge::read(answer.response.headers().get_all(WWW_AUTHENTICATE));
        let authorization = self.authorize(&challenges, &answer).await?;
        self.session().authorization = Some(authorization);
        Ok(self.send(url, accept, self.scheme()).await?.ok().await?)
    }

    async fn send_plaintext(&self, url: &Uri, accept: &'static str) -> Result<Answer, client::Error> {
        let answer = self.send(url, accept, "http").await?;
        warn!(target: "wasm", registry = self.reference.host(), "plain HTTP");
        self.session().is_plaintext = true;
        Ok(answer)
    }

    async fn send(
        &self,
        url: &Uri,
        accept: &'static str,
        scheme: &'static str,
    ) -> Result<Answer, client::Error> {
        let mut ask = self.ask(with_scheme(url, scheme));
        ask.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(authorization) = self.session().authorization.clone() {
            ask.headers.insert(AUTHORIZATION, authorization);
        }
        self.client.send(&ask).await
    }

    fn ask(&self, url: Uri) -> Ask {
        Ask { strict: true, ..Ask::get(url, self.insecure) }
    }

    /// Without TLS it goes on where nobody is in between, or somebody said so:
    /// whoever is in between could be the one who speaks none.
    async fn allow_plaintext(&self, host: String, url: &Uri) -> Result<(), Error> {
        let addresses = self.client.addresses(client::host(url), url.port_u16().unwrap_or(80), None).await?;
        if !self.insecure && !addresses.iter().all(|address| is_private(address.ip())) {
            return Err(Error::Plaintext(host));
        }
        Ok(())
    }

    /// The header that answers one of the challenges.
    async fn authorize(&self, challenges: &[Challenge], answer: &Answer) -> Result<HeaderValue, Error> {
        let host = self.reference.host().to_owned();
        let known = challenges.iter().find(|one| one.is("basic") || one.is("bearer"));
        let Some(challenge) = known else { return Err(Error::Challenge(host)) };
        let credentials = self.credentials.as_ref();
        if challenge.is("basic") {
            return credentials.and_then(Credentials::basic).ok_or(Error::Anonymous(host));
        }
        if let Some(token) = credentials.and_then(|given| given.registry_token.as_deref()) {
            return bearer(token).ok_or(Error::Token(host));
        }
        self.token(challenge, &answer.url, answer.peer).await
    }

    async fn token(&self, challenge: &Challenge, registry: &Uri, peer: IpAddr) -> Result<HeaderValue, Error> {
        let bad = || client::Error::Url(challenge.get("realm").unwrap_or_default().to_owned());
        let realm: Uri = challenge.get("realm").unwrap_or_default().parse().map_err(|_| bad())?;
        if !matches!(realm.scheme_str(), Some("http" | "https")) {
            return Err(bad().into());
        }
        let mut ask = self.ask(realm.clone());
        ask.from = Some(peer);
        check_lead(&ask, registry, &realm)?;
        let pull = format!("repository:{}:pull", self.reference.path());
        let scope = challenge.get("scope").filter(|scope| !scope.is_empty()).unwrap_or(&pull);
        let mut pairs = vec![("scope", scope)];
        pairs.extend(challenge.get("service").map(|service| ("service", service)));
        debug!(target: "wasm", realm = client::shown(&realm), scope, "asking for a token");

        let credentials = self.credentials.as_ref();
        let answer = match credentials.and_then(|given| given.identity_token.as_deref()) {
            Some(token) => match self.refresh(&ask, &pairs, token).await {
                // Not every token server knows of refreshing.
                Err(client::Error::Status { status: StatusCode::NOT_FOUND, .. }) => {
                    self.grant(ask, &pairs).await?
                }
                answer => answer?,
            },
            None => self.grant(ask, &pairs).await?,
        };
        let text = Zeroizing::new(answer.text(MAX_TOKEN).await?.to_vec());
        let token: Option<Token> = serde_json::from_slice(&text).ok();
        let token = token.and_then(|token| token.access_token.or(token.token)).map(Zeroizing::new);
        let header = token.filter(|token| !token.is_empty()).and_then(|token| bearer(&token));
        header.ok_or_else(|| Error::Token(client::shown(&realm)))
    }

    async fn grant(&self, mut ask: Ask, pairs: &[(&str, &str)]) -> Result<Answer, client::Error> {
        let url = ask.url.to_string();
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}{}", form(pairs));
        ask.url = url.parse().map_err(|_| client::Error::Url(client::shown(&ask.url)))?;
        if let Some(basic) = self.credentials.as_ref().and_then(Credentials::basic) {
            ask.headers.insert(AUTHORIZATION, basic);
        }
        self.client.send(&ask).await?.ok().await
    }

    async fn refresh(&self, ask: &Ask, pairs: &[(&str, &str)], token: &str) -> Result<Answer, client::Error> {
        let own = [("client_id", "istio-agent"), ("grant_type", "refresh_token"), ("refresh_token", token)];
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut ask = ask.clone();
        ask.method = Method::POST;
        ask.headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        ask.body = Bytes::from(form(&[pairs, &own].concat()));
        self.client.send(&ask).await?.ok().await
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn with_scheme(url: &Uri, scheme: &'static str) -> Uri {
    let mut parts = url.clone().into_parts();
    parts.scheme = scheme.parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// Pairs as a form or a query has them.
fn form(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}
