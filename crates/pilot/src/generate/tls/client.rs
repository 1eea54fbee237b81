//! TLS of clients: between workloads of the mesh, and to servers elsewhere.

use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::{DataSource, TransportSocket};
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
};

use super::{
    CERTIFICATE, ROOTS, SOCKET, combined, credential, exact, file, secret, subject_names, usable_curves,
    usable_suites, versions,
};
use crate::generate::message::transport_socket;
use crate::scope::Scope;

/// TLS that a client begins.
#[derive(Clone, Debug, Default)]
pub(in crate::generate) struct Origin<'a> {
    /// Name it asks for; may be empty.
    pub(in crate::generate) sni: &'a str,
    /// Names of which the server's certificate must bear one; empty for any.
    pub(in crate::generate) names: &'a [String],
    /// Where its own certificate and the roots come from.
    pub(in crate::generate) source: Source<'a>,
    /// Whether it shows a certificate.
    pub(in crate::generate) is_mutual: bool,
    /// Whether any certificate will do.
    pub(in crate::generate) trusts_all: bool,
    /// File of revoked certificates; may be empty.
    pub(in crate::generate) revoked: &'a str,
    /// Whether it speaks HTTP/2 inside.
    pub(in crate::generate) is_http2: bool,
}

/// Where certificates come from.
#[derive(Clone, Copy, Debug)]
pub(in crate::generate) enum Source<'a> {
    /// A Secret by its name.
    Credential(&'a str),
    /// Files: chain, key and roots; roots that are empty are the system's.
    Files(&'a str, &'a str, &'a str),
}

impl Default for Source<'_> {
    fn default() -> Self {
        Self::Files("", "", "")
    }
}

fn socket(common: CommonTlsContext, sni: &str) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.into(),
        ..UpstreamTlsContext::default()
    };
    transport_socket(SOCKET, &context)
}

/// Calls workloads of the mesh that are one of `names`; any when it is empty.
pub(in crate::generate) fn mesh(sni: &str, names: &[String], is_http2: bool) -> TransportSocket {
    let alpn: &[&str] = if is_http2 { &["istio", "h2"] } else { &["istio"] };
    let names = names.iter().map(|name| exact(name)).collect();
    let common = CommonTlsContext {
        tls_params: Some(versions()),
        tls_certificate_sds_secret_configs: vec![secret(CERTIFICATE)],
        alpn_protocols: alpn.iter().map(|&name| name.into()).collect(),
        validation_context_type: combined(subject_names(names), secret(ROOTS)),
        ..CommonTlsContext::default()
    };
    socket(common, sni)
}

/// Begins TLS with any server. `None` when its own certificate is wanted and
/// no files are named.
pub(in crate::generate) fn origin(scope: Scope<'_>, origin: &Origin<'_>) -> Option<TransportSocket> {
    let mut parameters = versions();
    if let Some(defaults) = &scope.snapshot.mesh.tls_defaults {
        parameters.ecdh_curves = usable_curves(&defaults.ecdh_curves);
        parameters.cipher_suites = usable_suites(&defaults.cipher_suites);
    }
    let names = || subject_names(origin.names.iter().map(|name| exact(name)).collect());
    let (certificate, validation) = match origin.source {
        Source::Credential(name) => {
            let roots = || combined(names(), credential(scope, name, true));
            let validation = if origin.trusts_all { None } else { roots() };
            (Some(credential(scope, name, false)), validation)
        }
        Source::Files(chain, key, roots) => {
            let crl = (!origin.revoked.is_empty()).then(|| DataSource {
                specifier: Some(Specifier::Filename(origin.revoked.into())),
                ..DataSource::default()
            });
            let validation = if origin.trusts_all {
                Some(ValidationContextType::ValidationContext(CertificateValidationContext::default()))
            } else {
                let roots = if roots.is_empty() { "system" } else { roots };
                let own = CertificateValidationContext { crl, ..names() };
                combined(own, file(scope, &format!("file-root:{roots}")))
            };
            let is_named = !chain.is_empty() && !key.is_empty();
            (is_named.then(|| file(scope, &format!("file-cert:{chain}~{key}"))), validation)
        }
    };
    let certificates = if origin.is_mutual { vec![certificate?] } else { Vec::new() };
    let common = CommonTlsContext {
        tls_params: Some(parameters),
        tls_certificate_sds_secret_configs: certificates,
        alpn_protocols: if origin.is_http2 { vec!["h2".into()] } else { Vec::new() },
        validation_context_type: validation,
        ..CommonTlsContext::default()
    };
    Some(socket(common, origin.sni))
}
