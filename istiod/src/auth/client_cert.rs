//! The caller by its client certificate, which the TLS handshake has verified
//! against the mesh's roots.

use super::{Authenticator, Caller, Credentials, Refusal};

/// Takes the SPIFFE ids of the client certificate.
#[derive(Debug)]
pub struct ClientCert;

#[tonic::async_trait]
impl Authenticator for ClientCert {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    async fn authenticate(&self, credentials: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let certificate = credentials.client_cert?;
        let identities = certificate.spiffe_ids();
        Some(if identities.is_empty() {
            Err("holds no SPIFFE identity".into())
        } else {
            Ok(Caller { identities, by: self.name(), pod: None })
        })
    }
}
