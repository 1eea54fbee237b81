//! TLS that a gateway ends.

use config::validate::tls::{usable_curves, usable_suites};
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::{DataSource, TransportSocket};
use proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use proto::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsParameters,
};
use proto::istio::mesh::v1alpha1::mesh_config::TlsConfig;
use proto::istio::mesh::v1alpha1::mesh_config::tls_config::TlsProtocol as MeshProtocol;
use proto::istio::networking::v1alpha3::ServerTlsSettings;
use proto::istio::networking::v1alpha3::server_tls_settings::{
    TlSmode as TlsMode, TlsProtocol as ApiProtocol,
};

use crate::generate::message::transport_socket;
use crate::generate::tls;
use crate::scope::Scope;
use crate::snapshot::gateway::Server;

/// What clients may speak inside.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// The socket of a server whose TLS ends here; `None` for one without.
pub(super) fn socket(scope: Scope<'_>, server: &Server) -> Option<TransportSocket> {
    server.tls.as_ref().filter(|_| !server.is_passthrough()).map(|settings| ends(scope, settings))
}

/// A socket that ends TLS with these settings.
pub(in crate::generate::listener) fn ends(scope: Scope<'_>, settings: &ServerTlsSettings) -> TransportSocket {
    transport_socket(tls::SOCKET, &context(scope, settings, &PROTOCOLS))
}

/// The same over QUIC, which speaks HTTP/3 only.
pub(super) fn quic(scope: Scope<'_>, settings: &ServerTlsSettings) -> TransportSocket {
    let config = QuicDownstreamTransport {
        downstream_tls_context: Some(context(scope, settings, &["h3"])),
        ..QuicDownstreamTransport::default()
    };
    transport_socket("envoy.transport_sockets.quic", &config)
}

fn context(scope: Scope<'_>, settings: &ServerTlsSettings, protocols: &[&str]) -> DownstreamTlsContext {
    let mode = settings.mode();
    let requires_client = matches!(mode, TlsMode::Mutual | TlsMode::IstioMutual);
    let mut common = match mode {
        TlsMode::IstioMutual => from_agent(scope, settings, true, &own_files(scope)),
        mode if names_secrets(settings) => from_control_plane(scope, settings, mode),
        _ => from_agent(scope, settings, requires_client || mode == TlsMode::OptionalMutual, settings),
    };
    common.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
    if mode != TlsMode::IstioMutual {
        common.tls_params = parameters(scope.snapshot.mesh.tls_defaults.as_ref(), settings);
    }
    DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(requires_client),
        ..DownstreamTlsContext::default()
    }
}

/// The files that the proxy says it shows others, if any, in place of the
/// certificate of its workload.
fn own_files(scope: Scope<'_>) -> ServerTlsSettings {
    let says = |key| scope.proxy.says(key).to_owned();
    ServerTlsSettings {
        server_certificate: says("TLS_SERVER_CERT_CHAIN"),
        private_key: says("TLS_SERVER_KEY"),
        ca_certificates: says("TLS_SERVER_ROOT_CERT"),
        ..ServerTlsSettings::default()
    }
}

fn names_secrets(settings: &ServerTlsSettings) -> bool {
    !settings.credential_names.is_empty() || !settings.credential_name.is_empty()
}

/// Certificates from Secrets, which the control plane sends.
fn from_control_plane(scope: Scope<'_>, settings: &ServerTlsSettings, mode: TlsMode) -> CommonTlsContext {
    let names = match &settings.credential_names[..] {
        [] => std::slice::from_ref(&settings.credential_name),
        names => names,
    };
    // With several certificates the roots of the first one count.
    let roots = || match settings.ca_cert_credential_name.as_str() {
        "" => tls::credential(scope, names.first().map_or("", String::as_str), true),
        name => tls::credential(scope, name, false),
    };
    let validation = if matches!(mode, TlsMode::Mutual | TlsMode::OptionalMutual) {
        let own = CertificateValidationContext {
            verify_certificate_spki: settings.verify_certificate_spki.clone(),
            verify_certificate_hash: settings.verify_certificate_hash.clone(),
            ..validation(settings)
        };
        tls::combined(own, roots())
    } else {
        // No client is asked for a certificate; Envoy refuses names without roots.
        None
    };
    CommonTlsContext {
        tls_certificate_sds_secret_configs: names
            .iter()
            .map(|name| tls::credential(scope, name, false))
            .collect(),
        validation_context_type: validation,
        ..CommonTlsContext::default()
    }
}

/// Certificates that the proxy's agent reads from `files`; its own where none are named.
fn from_agent(
    scope: Scope<'_>,
    settings: &ServerTlsSettings,
    validates: bool,
    files: &ServerTlsSettings,
) -> CommonTlsContext {
    let pair = |chain: &str, key: &str| match (chain, key) {
        ("", _) | (_, "") => tls::secret(tls::CERTIFICATE),
        (chain, key) => tls::file(scope, &format!("file-cert:{chain}~{key}")),
    };
    let certificates = match &files.tls_certificates[..] {
        [] => vec![pair(&files.server_certificate, &files.private_key)],
        all => all.iter().map(|one| pair(&one.server_certificate, &one.private_key)).collect(),
    };
    let roots = || match files.ca_certificates.as_str() {
        "" => tls::secret(tls::ROOTS),
        path => tls::file(scope, &format!("file-root:{path}")),
    };
    let crl = (!settings.ca_crl.is_empty()).then(|| DataSource {
        specifier: Some(Specifier::Filename(settings.ca_crl.clone())),
        ..DataSource::default()
    });
    let own = CertificateValidationContext { crl, ..validation(settings) };
    CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates,
        validation_context_type: if validates { tls::combined(own, roots()) } else { None },
        ..CommonTlsContext::default()
    }
}

/// What a client's certificate must be, besides being signed by a root.
fn validation(settings: &ServerTlsSettings) -> CertificateValidationContext {
    let trusts_all = settings.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value);
    let trust =
        if trusts_all { TrustChainVerification::AcceptUntrusted } else { TrustChainVerification::default() };
    CertificateValidationContext {
        trust_chain_verification: trust.into(),
        ..tls::subject_names(settings.subject_alt_names.iter().map(|name| tls::exact(name)).collect())
    }
}

/// Versions, ciphers and curves: the server's, over those of the mesh.
fn parameters(mesh: Option<&TlsConfig>, settings: &ServerTlsSettings) -> Option<TlsParameters> {
    let mut parameters = TlsParameters::default();
    if let Some(mesh) = mesh {
        parameters.ecdh_curves = usable_curves(&mesh.ecdh_curves);
        parameters.cipher_suites = usable_suites(&mesh.cipher_suites);
        parameters.tls_minimum_protocol_version = match mesh.min_protocol_version() {
            MeshProtocol::TlsAuto => TlsProtocol::TlsAuto,
            MeshProtocol::Tlsv12 => TlsProtocol::TlSv12,
            MeshProtocol::Tlsv13 => TlsProtocol::TlSv13,
        }
        .into();
    }
    let version = |version: ApiProtocol| match version {
        ApiProtocol::TlsAuto => TlsProtocol::TlsAuto,
        ApiProtocol::Tlsv10 => TlsProtocol::TlSv10,
        ApiProtocol::Tlsv11 => TlsProtocol::TlSv11,
        ApiProtocol::Tlsv12 => TlsProtocol::TlSv12,
        ApiProtocol::Tlsv13 => TlsProtocol::TlSv13,
    };
    if settings.min_protocol_version() != ApiProtocol::TlsAuto {
        parameters.tls_minimum_protocol_version = version(settings.min_protocol_version()).into();
    }
    if settings.max_protocol_version() != ApiProtocol::TlsAuto {
        parameters.tls_maximum_protocol_version = version(settings.max_protocol_version()).into();
    }
    let curves = usable_curves(&settings.ecdh_curves);
    if !curves.is_empty() {
        parameters.ecdh_curves = curves;
    }
    let suites = usable_suites(&settings.cipher_suites);
    if !suites.is_empty() {
        parameters.cipher_suites = suites;
    }
    (parameters != TlsParameters::default()).then_some(parameters)
}
