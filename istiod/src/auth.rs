//! Who is calling: from the credentials of a connection to a verified identity.

pub mod client_cert;
pub mod local;

use std::sync::Arc;

use names::SpiffeId;
use pki::certificate::Certificate;
use tonic::metadata::MetadataMap;

use crate::listener::Peer;

/// Somebody whose credentials were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Identities that the credentials prove.
    pub identities: Vec<SpiffeId>,
    /// How they were proven, for logs.
    pub by: &'static str,
}

/// One way of checking credentials.
#[tonic::async_trait]
pub trait Authenticator: Send + Sync {
    /// For logs.
    fn name(&self) -> &'static str;

    /// The caller, or why these credentials do not prove one; `None` when the
    /// request has no credentials of this kind.
    async fn authenticate(&self, request: &Credentials<'_>) -> Option<Result<Caller, String>>;
}

/// What a request shows of its sender.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// Verified client certificate, if one was presented.
    pub client_cert: Option<&'a Certificate>,
    /// The token of `authorization: Bearer TOKEN`.
    pub bearer: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// Collects the credentials of a gRPC request.
    #[must_use]
    pub fn of(metadata: &'a MetadataMap, peer: Option<&'a Peer>) -> Self {
        let bearer = metadata
            .get(names::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix(names::header::BEARER))
            .map(str::trim);
        Self { client_cert: peer.and_then(|peer| peer.certificate.as_deref()), bearer }
    }
}

/// The authenticators, tried in order; the first success wins.
#[derive(Clone)]
pub struct Chain(Arc<[Box<dyn Authenticator>]>);

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|authenticator| authenticator.name())).finish()
    }
}

impl Chain {
    /// A chain of those authenticators.
    #[must_use]
    pub fn new(authenticators: Vec<Box<dyn Authenticator>>) -> Self {
        Self(authenticators.into())
    }

    /// The caller, or every reason why there is none.
    ///
    /// # Errors
    /// One line that says what each authenticator found.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Caller, String> {
        let mut reasons = Vec::new();
        for authenticator in &*self.0 {
            match authenticator.authenticate(credentials).await {
                Some(Ok(caller)) => return Ok(caller),
                Some(Err(reason)) => reasons.push(format!("{}: {reason}", authenticator.name())),
                None => {}
            }
        }
        if reasons.is_empty() {
            reasons.push("the request carries neither a token nor a client certificate".into());
        }
        Err(reasons.join("; "))
    }
}
