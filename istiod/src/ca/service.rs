//! The gRPC face of the CA: `istio.v1.auth.IstioCertificateService`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::csr::Csr;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authority::{Authority, Error};
use crate::auth::{Chain, Credentials};
use crate::listener::Peer;
use crate::metrics::Metrics;

/// Signs certificate requests of authenticated callers.
#[derive(Clone, Debug)]
pub struct Service {
    authority: Authority,
    auth: Chain,
    metrics: Arc<Metrics>,
}

impl Service {
    /// A service of that authority.
    #[must_use]
    pub fn new(authority: Authority, auth: Chain, metrics: Arc<Metrics>) -> Self {
        Self { authority, auth, metrics }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.csr_count.inc();
        let peer = request.extensions().get::<Peer>().cloned();
        let address = peer.as_ref().map(|peer| peer.address);
        if peer.as_ref().is_some_and(|peer| !peer.is_tls) {
            self.metrics.authentication_failures.inc();
            return Err(Status::unauthenticated("certificates are issued over TLS only"));
        }
        let credentials = Credentials::of(request.metadata(), peer.as_ref());
        let caller = match self.auth.authenticate(&credentials).await {
            Ok(caller) => caller,
            Err(reason) => {
                self.metrics.authentication_failures.inc();
                warn!(target: "ca", ?address, reason, "certificate request refused");
                return Err(Status::unauthenticated(format!("request authenticate failure: {reason}")));
            }
        };
        let request = request.into_inner();
        let refuse = |kind: &str, code: tonic::Code, error: &dyn std::fmt::Display| {
            self.metrics.sign_error(kind);
            warn!(target: "ca", ?address, identities = ?caller.identities, %error, "certificate request refused");
            Status::new(code, format!("CSR signing error ({error})"))
        };
        let csr = Csr::parse(&request.csr)
            .map_err(|error| refuse("CSR_ERROR", tonic::Code::InvalidArgument, &error))?;
        let ttl = u64::try_from(request.validity_duration).ok().filter(|seconds| *seconds > 0);
        let now = SystemTime::now();
        let chain = self.authority.sign(&csr, &caller.identities, ttl.map(Duration::from_secs), now);
        let chain = chain.map_err(|error| match &error {
            Error::Ttl { .. } => refuse("TTL_ERROR", tonic::Code::InvalidArgument, &error),
            _ => refuse("CERT_GEN_ERROR", tonic::Code::Internal, &error),
        })?;
        self.metrics.issued.inc();
        info!(target: "ca", ?address, identities = ?caller.identities, by = caller.by, "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain: chain }))
    }
}
