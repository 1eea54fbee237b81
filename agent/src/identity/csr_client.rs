//! One call to the CA: `istio.v1.auth.IstioCertificateService/CreateCertificate`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};
use names::SpiffeId;
use pki::key::PrivateKey;
use proto::istio::v1::auth::IstioCertificateRequest;
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use runtime::tasks::Tasks;

use super::Identity;
use crate::config::Certificates;
use crate::metrics::Metrics;
use crate::upstream;

/// Time for a whole call after the connection is there.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// The CA says no.
    #[error("the CA refuses: {code:?}: {message}")]
    Refused {
        /// Its code.
        code: tonic::Code,
        /// Its reason.
        message: String,
    },
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

/// Asks the CA for certificates.
#[derive(Debug)]
pub struct Client {
    /// Where and how.
    pub settings: Certificates,
    /// Who asks.
    pub identity: SpiffeId,
    /// Token file.
    pub token: PathBuf,
    /// Runs the connection.
    pub tasks: Tasks,
    /// Counts the calls.
    pub metrics: Arc<Metrics>,
}

impl Client {
    /// Makes a new key and gets a certificate for it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self) -> Result<Identity, Error> {
        self.metrics.csr_requests.inc();
        let result = self.try_ask().await;
        if result.is_err() {
            self.metrics.csr_failures.inc();
        }
        result
    }

    async fn try_ask(&self) -> Result<Identity, Error> {
        let key = self.make_key().await?;
        let csr = pki::csr::request(&key, &self.identity)?;
        let created = SystemTime::now();
        let mut sender = upstream::connect(&self.settings.ca, &self.tasks).await?;
        let service = tower::service_fn(move |request| sender.send_request(request));
        let mut client =
            IstioCertificateServiceClient::with_origin(service, upstream::origin(&self.settings.ca));
        let call = client.create_certificate(self.request(csr));
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| Error::Timeout)?;
        let answer = answer
            .map_err(|status| Error::Refused { code: status.code(), message: status.message().to_owned() })?;
        Ok(Identity::new(&key, &answer.into_inner().cert_chain, created)?)
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

    fn request(&self, csr: String) -> tonic::Request<IstioCertificateRequest> {
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
        if let Some(token) = upstream::authorization(&self.token) {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        request
    }
}
