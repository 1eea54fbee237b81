//! TLS settings that trust given roots and nothing else, or, where somebody
//! asks for that, anybody.

mod anybody;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::{self, Certificate};
use crate::key::PrivateKey;
use anybody::Anybody;

/// Why TLS settings cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The roots cannot be read.
    #[error("root certificates: {0}")]
    Roots(certificate::Error),
    /// The chain cannot be read.
    #[error("certificate chain: {0}")]
    Chain(certificate::Error),
    /// The pieces do not fit together.
    #[error("TLS settings: {0}")]
    Tls(String),
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// At least one of them must do; a system's bundle may hold some that do not.
fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let mut first = None;
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = der.map_err(tls).and_then(|der| store.add(der).map_err(tls));
        first = first.or(added.err());
    }
    match first {
        Some(error) if store.is_empty() => Err(error),
        None if store.is_empty() => Err(Error::Roots(certificate::Error::None)),
        _ => Ok(store),
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = Certificate::all_from_pem(pem).map_err(Error::Chain)?;
    Ok(all.into_iter().map(|certificate| certificate.der().clone()).collect())
}

fn alpn(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

/// A server with that certificate. Clients may show a certificate of `roots`;
/// one that does not verify ends the handshake.
///
/// # Errors
/// When certificate, key or roots are unusable.
pub fn server_config(
    chain_pem: &str,
    key: &PrivateKey,
    roots_pem: &str,
    protocols: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(roots_pem)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(tls)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(chain_pem)?, key.to_der())
        .map_err(tls)?;
    config.alpn_protocols = alpn(protocols);
    Ok(config)
}

/// A client that trusts `roots` and, if given, shows a certificate.
///
/// # Errors
/// When certificate, key or roots are unusable.
pub fn client_config(
    roots_pem: &str,
    identity: Option<(&str, &PrivateKey)>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots(roots_pem)?);
    let mut config = match identity {
        Some((chain_pem, key)) => {
            builder.with_client_auth_cert(chain(chain_pem)?, key.to_der()).map_err(tls)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(protocols);
    Ok(config)
}

/// What a server whose certificate nobody checks has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// That it has the key of its certificate.
    Key,
    /// Nothing: certificates that webpki cannot read will do.
    Nothing,
}

/// Accepts every certificate of a server.
#[must_use]
pub fn anybody(proof: Proof) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody { algorithms: provider().signature_verification_algorithms, proof })
}

/// A client that talks to anybody.
///
/// # Errors
/// When the provider has no version of TLS, which it has.
pub fn unverified_client_config(proof: Proof, protocols: &[&[u8]]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(anybody(proof))
        .with_no_client_auth();
    config.alpn_protocols = alpn(protocols);
    Ok(config)
}

/// Looks whether a chain begins with the certificate of that key.
///
/// # Errors
/// When they are of different pairs, or unusable.
pub fn check_pair(chain_pem: &str, key: &PrivateKey) -> Result<(), Error> {
    let chain = chain(chain_pem)?;
    CertifiedKey::from_der(chain, key.to_der(), &provider()).map(drop).map_err(tls)
}

/// Looks at a chain as both kinds of peers do: as a client's and as a server's.
///
/// # Errors
/// What a peer with those roots would say.
pub fn check_chain(chain_pem: &str, roots_pem: &str, now: SystemTime) -> Result<(), Error> {
    let chain = chain(chain_pem)?;
    let roots = Arc::new(roots(roots_pem)?);
    let (leaf, between) = chain.split_first().ok_or(Error::Chain(certificate::Error::None))?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).map_err(tls)?);
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(tls)?;
    clients.verify_client_cert(leaf, between, now).map_err(tls)?;
    let leaf = ParsedCertificate::try_from(leaf).map_err(tls)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, between, now, algorithms).map_err(tls)
}
