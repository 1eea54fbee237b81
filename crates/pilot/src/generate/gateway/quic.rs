//! Which servers of a gateway speak HTTP/3 beside HTTPS (`PILOT_ENABLE_QUIC_LISTENERS`).

use std::collections::BTreeSet;

use proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use proto::istio::networking::v1alpha3::server_tls_settings::{TlSmode as TlsMode, TlsProtocol};

use crate::protocol::Protocol;
use crate::scope::{Scope, udp_ports};
use crate::snapshot::gateway::{Server, is_socket};

/// Ports that are open for QUIC.
#[derive(Debug, Default)]
pub(in crate::generate) struct Quic {
    /// Those that a service in front has for UDP; none while the switch is off.
    ports: BTreeSet<u16>,
}

impl Quic {
    /// Those of a proxy.
    pub(in crate::generate) fn of(scope: Scope<'_>) -> Self {
        let is_on = scope.snapshot.settings.features.quic_listeners;
        Self { ports: if is_on { udp_ports(scope.snapshot, scope.proxy) } else { BTreeSet::new() } }
    }

    /// Whether a server is open for it: one that ends TLS. Envoy cannot ask for a
    /// client's certificate there, so a server that asks for one keeps to HTTPS: a
    /// client that goes over to QUIC would lose its name. And QUIC has TLS 1.3 inside.
    pub(in crate::generate) fn takes(&self, server: &Server) -> bool {
        let Some(tls) = &server.tls else { return false };
        let is_old = matches!(
            tls.max_protocol_version(),
            TlsProtocol::Tlsv10 | TlsProtocol::Tlsv11 | TlsProtocol::Tlsv12
        );
        server.protocol == Protocol::Https
            && self.ports.contains(&server.port)
            && tls.mode() == TlsMode::Simple
            && !is_old
            && !is_socket(&server.bind)
    }
}

/// Tells clients for a day that HTTP/3 is spoken at a port.
pub(in crate::generate) fn advertisement(port: u16) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: "alt-svc".into(),
            value: format!("h3=\":{port}\"; ma=86400"),
            ..HeaderValue::default()
        }),
        ..HeaderValueOption::default()
    }
}
