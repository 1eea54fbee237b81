//! TLS: where certificates come from, and the sockets that use them.

pub(super) mod client;
mod proxyless;
#[cfg(test)]
mod tests;

use config::validate::tls::{usable_curves, usable_suites};
use mesh::MeshConfig;
use proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket,
    api_config_source::ApiType,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
};
use proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
};
use proto::envoy::r#type::matcher::v3::StringMatcher;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::istio::mesh::v1alpha1::mesh_config::tls_config::TlsProtocol as MeshProtocol;

use super::message::{seconds, transport_socket};
use crate::scope::Scope;

pub(super) use proxyless::{proxyless_client, proxyless_server};

/// Bootstrap cluster of the agent's secret socket.
const AGENT: &str = "sds-grpc";
/// Bootstrap cluster of a server that hands out files in place of the agent.
const FILES: &str = "sds-files-grpc";
/// Cluster of a server beside a gateway that hands out credentials.
pub(super) const EXTERNAL: &str = "sds-external";
/// Secret: the workload's certificate.
pub(super) const CERTIFICATE: &str = "default";
/// Secret: the roots of the mesh.
pub(super) const ROOTS: &str = "ROOTCA";
/// Name of the TLS socket.
pub(super) const SOCKET: &str = "envoy.transport_sockets.tls";
/// Prefix of a `credentialName` that an external server knows.
const EXTERNAL_PREFIX: &str = "sds://";

const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// A secret that a server of bootstrap's has; Envoy waits for it only for the
/// workload's own certificate and roots.
fn by_grpc(name: &str, cluster: &str) -> SdsSecretConfig {
    let server = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: cluster.into(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![server],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    let waits = matches!(name, CERTIFICATE | ROOTS);
    SdsSecretConfig {
        name: name.into(),
        sds_config: Some(ConfigSource {
            initial_fetch_timeout: if waits { seconds(0) } else { None },
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}

/// A secret that the agent has.
pub(super) fn secret(name: &str) -> SdsSecretConfig {
    by_grpc(name, AGENT)
}

/// A secret from files: `file-cert:CERTIFICATE~KEY` or `file-root:ROOTS`.
pub(super) fn file(scope: Scope<'_>, name: &str) -> SdsSecretConfig {
    let is_other = scope.proxy.says("file-credential") == "true";
    by_grpc(name, if is_other { FILES } else { AGENT })
}

/// Whether a server of credentials stands beside the proxy.
pub(super) fn has_external(scope: Scope<'_>) -> bool {
    scope.proxy.says("credential") == "true"
}

/// A secret by `credentialName`, with `-cacert` for its roots.
pub(super) fn credential(scope: Scope<'_>, name: &str, is_roots: bool) -> SdsSecretConfig {
    let full = if is_roots { format!("{name}-cacert") } else { name.to_owned() };
    let name = match full.strip_prefix(EXTERNAL_PREFIX) {
        Some(_) if has_external(scope) => return by_grpc(&full, EXTERNAL),
        Some(name) => name,
        None => &full,
    };
    if name.starts_with("builtin://") {
        return secret(if is_roots { ROOTS } else { CERTIFICATE });
    }
    // Envoy does not wait: one that does not exist harms only its own users.
    SdsSecretConfig {
        name: resource_name(name),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
            ..ConfigSource::default()
        }),
    }
}

/// The name by which the control plane knows a credential: a Secret, unless it
/// says what it is.
pub(super) fn resource_name(name: &str) -> String {
    const KINDS: [&str; 3] = ["configmap://", "kubernetes://", "kubernetes-gateway://"];
    if name.starts_with("invalid://") {
        "invalid://".into()
    } else if KINDS.iter().any(|kind| name.starts_with(kind)) {
        name.into()
    } else {
        format!("kubernetes://{name}")
    }
}

pub(super) fn exact(name: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(name.into())), ..StringMatcher::default() }
}

/// The untyped list: any kind of subject alternative name may match. Envoy
/// marks it deprecated in favour of a typed one; Istio writes this one.
#[allow(deprecated)]
pub(super) fn subject_names(matchers: Vec<StringMatcher>) -> CertificateValidationContext {
    CertificateValidationContext {
        match_subject_alt_names: matchers,
        ..CertificateValidationContext::default()
    }
}

/// What a peer's certificate must be, and the roots that it must be signed by.
pub(super) fn combined(
    own: CertificateValidationContext,
    roots: SdsSecretConfig,
) -> Option<ValidationContextType> {
    Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(roots),
        ..CombinedCertificateValidationContext::default()
    }))
}

fn versions() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    }
}

/// What the workload shows others: the mesh's certificate, or files that the
/// proxy's metadata names (`TLS_SERVER_*`, `TLS_CLIENT_*`).
fn named_or(scope: Scope<'_>, name: &str, otherwise: &str) -> SdsSecretConfig {
    if name.is_empty() { secret(otherwise) } else { file(scope, name) }
}

/// Trust domains whose peers are let in: each once, in the order of what the mesh says.
fn trust_domains(mesh: &MeshConfig) -> Vec<&str> {
    let mut domains = vec![mesh.trust_domain()];
    let aliases = mesh.trust_domain_aliases.iter();
    for domain in aliases.chain(mesh.ca_certificates.iter().flat_map(|roots| &roots.trust_domains)) {
        if !domain.is_empty() && !domains.contains(&domain.as_str()) {
            domains.push(domain);
        }
    }
    domains
}

/// Accepts clients of the mesh's trust domains, or of any when istiod is told so.
pub(super) fn server(scope: Scope<'_>) -> TransportSocket {
    let mesh = &scope.snapshot.mesh;
    let domains =
        if scope.snapshot.settings.features.skip_trust_domain { Vec::new() } else { trust_domains(mesh) };
    let prefix = |domain: &str| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(format!("spiffe://{domain}/"))),
        ..StringMatcher::default()
    };
    let says = |key| scope.proxy.says(key);
    let (chain, key, roots) =
        (says("TLS_SERVER_CERT_CHAIN"), says("TLS_SERVER_KEY"), says("TLS_SERVER_ROOT_CERT"));
    let pair =
        if chain.is_empty() || key.is_empty() { String::new() } else { format!("file-cert:{chain}~{key}") };
    let roots = if roots.is_empty() { String::new() } else { format!("file-root:{roots}") };
    let mut parameters = versions();
    parameters.cipher_suites = CIPHER_SUITES.iter().map(|&suite| suite.into()).collect();
    if let Some(settings) = &mesh.mesh_m_tls {
        if settings.min_protocol_version() == MeshProtocol::Tlsv13 {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv13.into();
        }
        let suites = usable_suites(&settings.cipher_suites);
        if !suites.is_empty() {
            parameters.cipher_suites = suites;
        }
    }
    let common = CommonTlsContext {
        tls_params: Some(parameters),
        tls_certificate_sds_secret_configs: vec![named_or(scope, &pair, CERTIFICATE)],
        alpn_protocols: vec!["h2".into(), "http/1.1".into()],
        validation_context_type: combined(
            subject_names(domains.into_iter().map(prefix).collect()),
            named_or(scope, &roots, ROOTS),
        ),
        ..CommonTlsContext::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    transport_socket(SOCKET, &context)
}

/// No TLS.
pub(super) fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}
