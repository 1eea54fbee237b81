//! TLS by the roots of the system, or without any.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{
    self, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::Error;

fn builder() -> Result<ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Roots(error.to_string()))
}

/// Servers are verified by the roots of that file, or by those of the system.
/// They are read each time: hardly ever, and they are large in memory.
pub(super) fn verified(file: Option<&Path>) -> Result<ClientConfig, Error> {
    let none = "the system has none; install ca-certificates, or name a file in SSL_CERT_FILE";
    let file = match file {
        Some(file) => file,
        None => crate::identity::roots::system().ok_or_else(|| Error::Roots(none.into()))?,
    };
    let pem = std::fs::read(file).map_err(|error| Error::Roots(format!("{}: {error}", file.display())))?;
    let mut store = RootCertStore::empty();
    // Bundles hold some that cannot be read; the others count.
    let readable = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let (added, _) = store.add_parsable_certificates(readable);
    if added == 0 {
        return Err(Error::Roots(format!("{} holds none", file.display())));
    }
    Ok(builder()?.with_root_certificates(store).with_no_client_auth())
}

/// Nobody is verified, as `WASM_INSECURE_REGISTRIES` wishes.
pub(super) fn unverified() -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Anybody(ring::default_provider()));
    Ok(builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Accepts every certificate whose key the peer has.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
