//! The gRPC face of the CA: `istio.v1.auth.IstioCertificateService`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use names::SpiffeId;
use pki::csr::Csr;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authority::{Authority, Error};
use super::node::Nodes;
use super::registrar::{self, Registrar};
use crate::auth::{Caller, Chain, Credentials, Refusal};
use crate::listener::Peer;
use crate::metrics::Metrics;

/// Signs certificate requests of authenticated callers.
#[derive(Clone, Debug)]
pub struct Service {
    authority: Authority,
    auth: Chain,
    metrics: Arc<Metrics>,
    /// Who may ask for others; without it, nobody.
    nodes: Option<Nodes>,
    /// Signers of the cluster that sign in place of the authority.
    registrar: Option<Arc<Registrar>>,
}

/// Further wishes of a request, in its `metadata`.
#[derive(Debug, Default)]
struct Wishes {
    /// Name of the signer.
    signer: String,
    /// In whose name it is asked.
    identity: String,
}

impl Wishes {
    fn of(request: &IstioCertificateRequest) -> Self {
        let text = |key: &str| {
            let value = request.metadata.as_ref().and_then(|metadata| metadata.fields.get(key));
            let value = value.and_then(|value| serde_json::to_value(value).ok());
            value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        Self { signer: text("CertSigner"), identity: text("ImpersonatedIdentity") }
    }
}

impl Service {
    /// A service of that authority.
    #[must_use]
    pub fn new(authority: Authority, auth: Chain, metrics: Arc<Metrics>) -> Self {
        Self { authority, auth, metrics, nodes: None, registrar: None }
    }

    /// Lets proxies of a whole node ask for the workloads on it.
    #[must_use]
    pub fn with_nodes(mut self, nodes: Option<Nodes>) -> Self {
        self.nodes = nodes;
        self
    }

    /// Lets signers of the cluster sign.
    #[must_use]
    pub fn with_registrar(mut self, registrar: Option<Arc<Registrar>>) -> Self {
        self.registrar = registrar;
        self
    }

    /// The caller in whose name a request is: somebody else's, if that is wished for
    /// and may be.
    async fn in_whose_name(&self, caller: Caller, wished: &str) -> Result<Caller, Refusal> {
        if wished.is_empty() {
            return Ok(caller);
        }
        let nodes =
            self.nodes.as_ref().ok_or("nobody may ask for others (CA_TRUSTED_NODE_ACCOUNTS is not set)")?;
        let id: SpiffeId = wished.parse().map_err(|error| format!("identity {wished:?}: {error}"))?;
        nodes.check(&caller, &id).await?;
        Ok(Caller { identities: vec![id], ..caller })
    }

    /// What a caller gets for a request.
    ///
    /// # Errors
    /// Why it is refused, in Istio's words where there are any.
    pub async fn sign(
        &self,
        request: &IstioCertificateRequest,
        caller: &Caller,
        address: Option<SocketAddr>,
        now: SystemTime,
    ) -> Result<Vec<String>, Status> {
        let refuse = |kind: &str, code: tonic::Code, error: &dyn std::fmt::Display| {
            self.metrics.sign_error(kind);
            warn!(target: "ca", ?address, identities = ?caller.identities, %error, "certificate request refused");
            Status::new(code, format!("CSR signing error ({error})"))
        };
        let signer = Wishes::of(request).signer;
        let ttl = u64::try_from(request.validity_duration).ok().filter(|seconds| *seconds > 0);
        let ttl = ttl.map(Duration::from_secs);
        if let Some(registrar) = &self.registrar {
            let ttl = self.authority.lifetime(ttl);
            let ttl = ttl.map_err(|error| refuse("TTL_ERROR", tonic::Code::InvalidArgument, &error))?;
            let signed = registrar.sign(&request.csr, &caller.identities, ttl, &signer).await;
            return signed.map_err(|error| {
                let (kind, code) = verdict(&error);
                refuse(kind, code, &error)
            });
        }
        if !signer.is_empty() {
            let why =
                format!("there is no signer {signer:?}: leave CertSigner out for the authority of the mesh");
            return Err(refuse("CSR_ERROR", tonic::Code::InvalidArgument, &why));
        }
        let csr = Csr::parse(&request.csr)
            .map_err(|error| refuse("CSR_ERROR", tonic::Code::InvalidArgument, &error))?;
        let chain = self.authority.sign(&csr, &caller.identities, ttl, now);
        chain.map_err(|error| match &error {
            Error::Ttl { .. } => refuse("TTL_ERROR", tonic::Code::InvalidArgument, &error),
            _ => refuse("CERT_GEN_ERROR", tonic::Code::Internal, &error),
        })
    }
}

/// What a caller is told when no signer of the cluster signs: whether the same may
/// work later, too.
fn verdict(error: &registrar::Error) -> (&'static str, tonic::Code) {
    use super::requests::Error as Asked;
    match error {
        registrar::Error::Csr(_) | registrar::Error::NoDomain(_) => {
            ("CSR_ERROR", tonic::Code::InvalidArgument)
        }
        registrar::Error::Request(Asked::Api { may_change: true, .. } | Asked::Silent(_) | Asked::Ended) => {
            ("CERT_GEN_ERROR", tonic::Code::Unavailable)
        }
        _ => ("CERT_GEN_ERROR", tonic::Code::Internal),
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
                warn!(target: "ca", ?address, %reason, "certificate request refused");
                return Err(reason.status("request authenticate failure"));
            }
        };
        let request = request.into_inner();
        let caller = match self.in_whose_name(caller, &Wishes::of(&request).identity).await {
            Ok(caller) => caller,
            Err(reason) => {
                self.metrics.authentication_failures.inc();
                warn!(target: "ca", ?address, %reason, "certificate request refused");
                return Err(reason.status("request impersonation authentication failure"));
            }
        };
        let chain = self.sign(&request, &caller, address, SystemTime::now()).await?;
        self.metrics.issued.inc();
        info!(target: "ca", ?address, identities = ?caller.identities, by = caller.by, "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain: chain }))
    }
}

#[cfg(test)]
mod tests;
