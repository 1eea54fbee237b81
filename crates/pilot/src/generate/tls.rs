//! TLS of the mesh: both ends show a certificate of the mesh and check the other's.

use proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket, api_config_source::ApiType,
};
use proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    SdsSecretConfig, TlsParameters, UpstreamTlsContext,
};
use proto::envoy::r#type::matcher::v3::StringMatcher;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::message::{seconds, transport_socket};

/// Bootstrap cluster of the agent's secret socket.
const SDS_CLUSTER: &str = "sds-grpc";
/// Secret: the workload's certificate.
const CERTIFICATE: &str = "default";
/// Secret: the roots of the mesh.
const ROOTS: &str = "ROOTCA";

const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

fn secret(name: &str) -> SdsSecretConfig {
    let agent = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: SDS_CLUSTER.into(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![agent],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    SdsSecretConfig {
        name: name.into(),
        sds_config: Some(ConfigSource {
            initial_fetch_timeout: seconds(0),
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}

fn common(names: Vec<MatchPattern>, alpn: &[&str], cipher_suites: &[&str]) -> CommonTlsContext {
    let matcher = |pattern| StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(subject_names(names.into_iter().map(matcher).collect())),
        validation_context_sds_secret_config: Some(secret(ROOTS)),
        ..CombinedCertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            cipher_suites: cipher_suites.iter().map(|&suite| suite.into()).collect(),
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(CERTIFICATE)],
        alpn_protocols: alpn.iter().map(|&name| name.into()).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

/// The untyped list: any kind of subject alternative name may match. Envoy
/// marks it deprecated in favour of a typed one; Istio writes this one.
#[allow(deprecated)]
fn subject_names(matchers: Vec<StringMatcher>) -> CertificateValidationContext {
    CertificateValidationContext {
        match_subject_alt_names: matchers,
        ..CertificateValidationContext::default()
    }
}

/// Accepts clients of these trust domains.
pub(super) fn server<'a>(trust_domains: impl Iterator<Item = &'a str>) -> TransportSocket {
    let names = trust_domains.map(|domain| MatchPattern::Prefix(format!("spiffe://{domain}/"))).collect();
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(names, &["h2", "http/1.1"], &CIPHER_SUITES)),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

/// Calls servers that are one of `identities`; any of the mesh when it is empty.
pub(super) fn client(sni: String, identities: Vec<String>, is_http2: bool) -> TransportSocket {
    let alpn: &[&str] = if is_http2 { &["istio", "h2"] } else { &["istio"] };
    let names = identities.into_iter().map(MatchPattern::Exact).collect();
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(names, alpn, &[])),
        sni,
        ..UpstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

/// Name that gRPC's bootstrap has for the files with key, certificate and roots.
const PROVIDER: &str = "default";

/// Certificates from files that gRPC reads itself, in the fields of today and
/// in those that older clients know.
#[allow(deprecated)]
fn from_files(names: Vec<String>) -> CommonTlsContext {
    let instance = |name: &str| CertificateProviderPluginInstance {
        instance_name: PROVIDER.into(),
        certificate_name: name.into(),
    };
    let older = |name: &str| CertificateProviderInstance {
        instance_name: PROVIDER.into(),
        certificate_name: name.into(),
    };
    let matcher =
        |name| StringMatcher { match_pattern: Some(MatchPattern::Exact(name)), ..StringMatcher::default() };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            ca_certificate_provider_instance: Some(instance(ROOTS)),
            ..subject_names(names.into_iter().map(matcher).collect())
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
pub(super) fn proxyless_server() -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(from_files(Vec::new())),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

/// Calls servers that are one of `identities`, without a proxy.
pub(super) fn proxyless_client(identities: Vec<String>) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(from_files(identities)),
        ..UpstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

/// No TLS.
pub(super) fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}
