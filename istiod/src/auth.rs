//! Who is calling: from the credentials of a connection to a verified identity.

pub mod assemble;
pub mod client_cert;
pub mod local;
pub mod oidc;
pub mod token_review;
pub mod xfcc;

use std::net::IpAddr;
use std::sync::Arc;

use names::SpiffeId;
use pki::certificate::Certificate;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::listener::Peer;

/// Somebody whose credentials were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Identities that the credentials prove.
    pub identities: Vec<SpiffeId>,
    /// How they were proven, for logs.
    pub by: &'static str,
    /// The pod that its token was made for, if the API server names one.
    pub pod: Option<Pod>,
}

/// A pod, by what the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Why nobody is proven by credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// They do not prove anybody.
    Unproven(String),
    /// They cannot be checked now; the same may be accepted later.
    Unavailable(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Unproven(why) | Self::Unavailable(why)) = self;
        f.write_str(why)
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Unproven(why)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::Unproven(why.to_owned())
    }
}

impl Refusal {
    /// What a caller of gRPC is told; one that may try again learns that.
    #[must_use]
    pub fn status(&self, what: &str) -> Status {
        match self {
            Self::Unproven(why) => Status::unauthenticated(format!("{what}: {why}")),
            Self::Unavailable(why) => Status::unavailable(why.clone()),
        }
    }
}

/// One way of checking credentials.
#[tonic::async_trait]
pub trait Authenticator: Send + Sync {
    /// For logs.
    fn name(&self) -> &'static str;

    /// The caller, or why these credentials do not prove one; `None` when the
    /// request has no credentials of this kind.
    async fn authenticate(&self, request: &Credentials<'_>) -> Option<Result<Caller, Refusal>>;
}

/// What a request shows of its sender.
#[derive(Debug, Default)]
pub struct Credentials<'a> {
    /// Verified client certificate, if one was presented.
    pub client_cert: Option<&'a Certificate>,
    /// The token of `authorization: Bearer TOKEN`.
    pub bearer: Option<&'a str>,
    /// The cluster whose API server knows the token, by the header `clusterid`.
    pub cluster: Option<&'a str>,
    /// Where the request is from.
    pub address: Option<IpAddr>,
    /// Certificates of others that the sender has seen (`x-forwarded-client-cert`).
    pub forwarded: Option<&'a str>,
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
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        Self {
            client_cert: peer.and_then(|peer| peer.certificate.as_deref()),
            bearer,
            cluster: text(names::header::CLUSTER_ID),
            address: peer.map(|peer| peer.address.ip().to_canonical()),
            forwarded: text(names::header::FORWARDED_CLIENT_CERT),
        }
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
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Caller, Refusal> {
        let mut reasons = Vec::new();
        let mut may_change = false;
        for authenticator in &*self.0 {
            match authenticator.authenticate(credentials).await {
                Some(Ok(caller)) => return Ok(caller),
                Some(Err(refusal)) => {
                    may_change |= matches!(refusal, Refusal::Unavailable(_));
                    reasons.push(format!("{}: {refusal}", authenticator.name()));
                }
                None => {}
            }
        }
        if reasons.is_empty() {
            reasons.push("the request carries neither a token nor a client certificate".into());
        }
        let reasons = reasons.join("; ");
        Err(if may_change { Refusal::Unavailable(reasons) } else { Refusal::Unproven(reasons) })
    }
}
