//! Mutual TLS of applications that speak xDS themselves.

use proto::envoy::config::core::v3::TransportSocket;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    UpstreamTlsContext,
};

use super::{CERTIFICATE, ROOTS, SOCKET, exact, subject_names};
use crate::generate::message::transport_socket;

/// Name that gRPC's bootstrap has for the files with key, certificate and roots.
const PROVIDER: &str = "default";

/// Certificates from files that gRPC reads itself, in the fields of today and
/// in those that older clients know.
#[allow(deprecated)]
fn from_files(names: &[String]) -> CommonTlsContext {
    let instance = |name: &str| CertificateProviderPluginInstance {
        instance_name: PROVIDER.into(),
        certificate_name: name.into(),
    };
    let older = |name: &str| CertificateProviderInstance {
        instance_name: PROVIDER.into(),
        certificate_name: name.into(),
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            ca_certificate_provider_instance: Some(instance(ROOTS)),
            ..subject_names(names.iter().map(|name| exact(name)).collect())
        }),
        validation_context_certificate_provider_instance: Some(older(ROOTS)),
        ..CombinedCertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_certificate_provider_instance: Some(instance(CERTIFICATE)),
        tls_certificate_certificate_provider_instance: Some(older(CERTIFICATE)),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

/// Accepts clients of the mesh, without a proxy.
pub(in crate::generate) fn proxyless_server() -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(from_files(&[])),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    transport_socket(SOCKET, &context)
}

/// Calls servers that are one of `identities`, without a proxy.
pub(in crate::generate) fn proxyless_client(identities: &[String]) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(from_files(identities)),
        ..UpstreamTlsContext::default()
    };
    transport_socket(SOCKET, &context)
}
