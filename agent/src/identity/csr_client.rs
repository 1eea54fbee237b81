//! One request to the CA: `istio.v1.auth.IstioCertificateService/CreateCertificate`,
//! repeated a few times when the CA says that it may help.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};
use names::SpiffeId;
use pki::key::PrivateKey;
use proto::istio::v1::auth::IstioCertificateRequest;
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use runtime::tasks::Tasks;
use tokio::time::Instant;
use tonic::Code;
use tracing::debug;

use super::Identity;
use super::token::{Expired, Token};
use crate::config::certificates::{Certificates, Security};
use crate::metrics::Metrics;
use crate::upstream;

/// Time for a whole call after the connection is there.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls for one request.
const ATTEMPTS: u32 = 5;
/// Wait before the second call; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Part of that wait that is random.
const JITTER: f64 = 0.1;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key or the request cannot be made.
    #[error("make a key: {0}")]
    Key(#[from] pki::key::Error),
    /// The request cannot be made.
    #[error("make a certificate request: {0}")]
    Request(#[from] pki::csr::Error),
    /// The CA cannot be reached.
    #[error("connect to the CA: {0}")]
    Connect(#[from] upstream::Error),
    /// There is nothing to send to the CA.
    #[error(transparent)]
    Token(#[from] Expired),
    /// The CA says no.
    #[error("the CA refuses: {code:?}: {message}")]
    Refused {
        /// Its code.
        code: Code,
        /// Its reason.
        message: String,
    },
    /// The connection ended in the middle of a call.
    #[error("connection to the CA lost: {0}")]
    Lost(String),
    /// The CA does not answer.
    #[error("the CA does not answer within {CALL_TIMEOUT:?}")]
    Timeout,
    /// The answer cannot be used.
    #[error(transparent)]
    Answer(#[from] super::Error),
    /// The task that makes RSA keys is gone.
    #[error("make a key: interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the same call may succeed in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Internal
                    | Code::Unavailable
            ),
            Self::Timeout | Self::Lost(_) => true,
            _ => false,
        }
    }

    /// Whether the CA has seen nothing of the request, so that asking again
    /// soon costs it little.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Token(_))
    }
}

/// Asks the CA for certificates.
#[derive(Debug)]
pub struct Client {
    /// Where and how.
    pub settings: Certificates,
    /// Who asks.
    pub identity: SpiffeId,
    /// What shows it.
    pub token: Arc<Token>,
    /// Runs the connection.
    pub tasks: Tasks,
    /// Counts the calls.
    pub metrics: Arc<Metrics>,
}

impl Client {
    /// Makes a new key and gets a certificate for it. While the CA gives none,
    /// the key stays in `spare` for the next call: RSA keys take seconds of work.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self, spare: &mut Option<PrivateKey>) -> Result<Identity, Error> {
        let metrics = &self.metrics.identity;
        metrics.csr_requests.inc();
        let start = Instant::now();
        let result = self.try_ask(spare).await;
        metrics.csr_took(Instant::now() - start);
        if result.is_err() {
            metrics.csr_failures.inc();
        }
        result
    }

    /// The files that decide whether the CA is trusted and what it thinks of
    /// the caller.
    pub fn credentials(&self) -> impl Iterator<Item = &Path> {
        let (roots, pair) = match &self.settings.ca.security {
            Security::Tls { roots, client } => (Some(roots), client.as_ref()),
            Security::Plaintext => (None, None),
        };
        let pair = pair.into_iter().flat_map(|pair| [&pair.chain, &pair.key]);
        std::iter::once(self.token.path())
            .chain(roots.into_iter().chain(pair).map(std::path::PathBuf::as_path))
    }

    async fn try_ask(&self, spare: &mut Option<PrivateKey>) -> Result<Identity, Error> {
        // Looked at before anything is made that could not be used.
        self.token.authorization(&self.settings.ca)?;
        let key = match spare.take() {
            Some(key) => key,
            None => self.make_key().await?,
        };
        let csr = pki::csr::request(&key, &self.identity)?;
        match self.call_again(&csr).await {
            Ok((created, chain)) => Ok(Identity::new(&key, self.settings.format, &chain, created)?),
            Err(error) => {
                *spare = Some(key);
                Err(error)
            }
        }
    }

    /// Calls until the CA answers or says what it would say again; returns when
    /// the call began as well.
    async fn call_again(&self, csr: &str) -> Result<(SystemTime, Vec<String>), Error> {
        let mut attempt = 1;
        loop {
            let created = SystemTime::now();
            match self.call(csr.to_owned()).await {
                Ok(chain) => return Ok((created, chain)),
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    let wait = FIRST_WAIT * 2u32.pow(attempt - 1);
                    let wait = wait.mul_f64(1.0 + JITTER * rand::random_range(-1.0..=1.0));
                    debug!(target: "ca", %error, attempt, ?wait, "calling the CA again");
                    self.metrics.identity.csr_retries.inc();
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One call over a connection of its own.
    async fn call(&self, csr: String) -> Result<Vec<String>, Error> {
        let request = self.request(csr)?;
        let mut sender = upstream::connect(&self.settings.ca, &self.tasks).await?;
        let service = tower::service_fn(move |request| sender.send_request(request));
        let mut client =
            IstioCertificateServiceClient::with_origin(service, upstream::origin(&self.settings.ca));
        let call = client.create_certificate(request);
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| Error::Timeout)?;
        let answer = answer.map_err(|status| match status.source() {
            Some(source) => Error::Lost(source.to_string()),
            None => Error::Refused { code: status.code(), message: status.message().to_owned() },
        })?;
        Ok(answer.into_inner().cert_chain)
    }

    async fn make_key(&self) -> Result<PrivateKey, Error> {
        let algorithm = self.settings.algorithm;
        if !matches!(algorithm, pki::key::Algorithm::Rsa(_)) {
            return Ok(PrivateKey::generate(algorithm)?);
        }
        // Takes long enough to keep everything else waiting.
        let made = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm)).await;
        Ok(made.map_err(|_| Error::Interrupted)??)
    }

    fn request(&self, csr: String) -> Result<tonic::Request<IstioCertificateRequest>, Expired> {
        let signer = pbjson_types::Value {
            kind: Some(pbjson_types::value::Kind::StringValue(self.settings.signer.clone())),
        };
        let metadata = pbjson_types::Struct { fields: [("CertSigner".to_owned(), signer)].into() };
        let validity = i64::try_from(self.settings.ttl.as_secs()).unwrap_or(i64::MAX);
        let message = IstioCertificateRequest { csr, validity_duration: validity, metadata: Some(metadata) };
        let mut request = tonic::Request::new(message);
        let mut headers = std::mem::take(request.metadata_mut()).into_headers();
        for (name, value) in &self.settings.ca.headers {
            // Checked when the configuration was read.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(token) = self.token.authorization(&self.settings.ca)? {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::certificates::{Endpoint, Source};

    #[test]
    fn only_passing_refusals_are_repeated() {
        let refused = |code| Error::Refused { code, message: String::new() };
        for code in [Code::Cancelled, Code::Aborted, Code::Internal, Code::Unavailable] {
            assert!(refused(code).is_passing(), "{code:?}");
        }
        for code in [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument, Code::Unknown] {
            assert!(!refused(code).is_passing(), "{code:?}");
        }
        assert!(Error::Timeout.is_passing());
        assert!(!Error::Interrupted.is_passing());
    }

    #[tokio::test]
    async fn one_key_serves_until_there_is_a_certificate_and_none_is_made_without_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let (path, metrics) = (dir.path().join("token"), Arc::new(Metrics::default()));
        // Nobody listens on that port.
        let ca = Endpoint {
            address: "127.0.0.1:1".into(),
            server_name: "a".into(),
            security: Security::Plaintext,
            headers: std::collections::BTreeMap::new(),
        };
        let settings = Certificates {
            source: Source::Csr,
            ca,
            ttl: Duration::from_secs(60),
            grace_ratio: 0.5,
            grace_jitter: 0.0,
            algorithm: pki::key::Algorithm::EcdsaP256,
            format: pki::key::Format::Traditional,
            signer: String::new(),
            own_roots: None,
            more_roots: Vec::new(),
            roots_over_xds: false,
            output: None,
        };
        let client = Client {
            settings,
            identity: "spiffe://cluster.local/ns/a/sa/b".parse().unwrap(),
            token: Arc::new(Token::new(path.clone(), metrics.clone())),
            tasks: Tasks::new(),
            metrics,
        };
        let mut spare = None;
        // It ended in 1970.
        std::fs::write(&path, "e30.eyJleHAiOjF9.c2ln").unwrap();
        assert!(matches!(client.ask(&mut spare).await, Err(Error::Token(_))));
        assert!(spare.is_none());
        std::fs::write(&path, "good").unwrap();
        assert!(matches!(client.ask(&mut spare).await, Err(Error::Connect(_))));
        let first = spare.as_ref().unwrap().public_key_pem();
        assert!(matches!(client.ask(&mut spare).await, Err(Error::Connect(_))));
        assert_eq!(spare.unwrap().public_key_pem(), first);
    }
}
