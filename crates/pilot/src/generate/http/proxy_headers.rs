//! Headers that proxies add and remove (`proxyHeaders` of the proxy's settings).

use mesh::ProxyConfig;
use proto::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use proto::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use proto::envoy::config::core::v3::{Http1ProtocolOptions, TypedExtensionConfig};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, ServerHeaderTransformation, SetCurrentClientCertDetails,
};
use proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use proto::istio::mesh::v1alpha1::ForwardClientCertDetails as Forward;
use proto::istio::mesh::v1alpha1::proxy_config::ProxyHeaders as Wanted;

use crate::generate::filter::Direction;
use crate::scope::Scope;

/// What is wished of headers, with Istio's defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::generate) struct ProxyHeaders<'a>(Option<&'a Wanted>);

/// The wishes that hold for a proxy.
pub(in crate::generate) fn of(scope: Scope<'_>) -> ProxyHeaders<'_> {
    let config: Option<&ProxyConfig> =
        scope.proxy.config.as_deref().or(scope.snapshot.mesh.default_config.as_ref());
    ProxyHeaders(config.and_then(|config| config.proxy_headers.as_ref()))
}

impl ProxyHeaders<'_> {
    /// Whether requests say how often they were tried.
    pub(in crate::generate) fn has_attempt_count(self) -> bool {
        !self
            .0
            .and_then(|wanted| wanted.attempt_count.as_ref()?.disabled.as_ref())
            .is_some_and(|off| off.value)
    }

    /// Whether requests keep the host that they came with in `x-forwarded-host`.
    pub(in crate::generate) fn has_forwarded_host(self) -> bool {
        self.0
            .and_then(|wanted| wanted.x_forwarded_host.as_ref()?.enabled.as_ref())
            .is_some_and(|on| on.value)
    }

    /// Whether Envoy keeps what it would tell of itself and of upstreams.
    pub(super) fn hides_envoy(self) -> bool {
        self.0
            .and_then(|wanted| wanted.envoy_debug_headers.as_ref()?.disabled.as_ref())
            .is_some_and(|off| off.value)
    }

    /// Whether header names keep their case.
    fn keeps_case(self) -> bool {
        self.0.and_then(|wanted| wanted.preserve_http1_header_case.as_ref()).is_some_and(|on| on.value)
    }

    /// How certificates of clients are told to the workload.
    pub(super) fn forwarded_certificate(self) -> ForwardClientCertDetails {
        match self.0.map_or(Forward::Undefined, Wanted::forwarded_client_cert) {
            Forward::Sanitize => ForwardClientCertDetails::Sanitize,
            Forward::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
            Forward::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
            Forward::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
            Forward::AppendForward | Forward::Undefined => ForwardClientCertDetails::AppendForward,
        }
    }

    /// What of certificates of clients is told to the workload.
    pub(super) fn certificate_details(self) -> SetCurrentClientCertDetails {
        let own = self.0.and_then(|wanted| wanted.set_current_client_cert_details.as_ref());
        let is = |of: fn(&_) -> Option<bool>, default| own.and_then(of).unwrap_or(default);
        SetCurrentClientCertDetails {
            subject: Some(is(|own| own.subject.as_ref().map(|on| on.value), true)),
            uri: is(|own| own.uri.as_ref().map(|on| on.value), true),
            dns: is(|own| own.dns.as_ref().map(|on| on.value), true),
            cert: is(|own| own.cert.as_ref().map(|on| on.value), false),
            chain: is(|own| own.chain.as_ref().map(|on| on.value), false),
            ..SetCurrentClientCertDetails::default()
        }
    }

    /// Sets what holds for every direction but the forwarded certificate.
    pub(super) fn apply(self, direction: Direction, manager: &mut HttpConnectionManager) {
        // Outbound Envoy calls itself "envoy" as it does by default.
        if direction != Direction::Outbound {
            manager.server_name = "istio-envoy".into();
        }
        if self.keeps_case() {
            let options = manager.http_protocol_options.get_or_insert_with(Http1ProtocolOptions::default);
            options.header_key_format = Some(preserving());
        }
        let Some(wanted) = self.0 else { return };
        if let Some(server) = &wanted.server {
            if server.disabled.as_ref().is_some_and(|off| off.value) {
                manager.server_name.clear();
                manager.server_header_transformation = ServerHeaderTransformation::PassThrough.into();
            } else if !server.value.is_empty() {
                manager.server_name.clone_from(&server.value);
            }
        }
        let request_id = wanted.request_id.as_ref().and_then(|own| own.disabled.as_ref());
        if request_id.is_some_and(|off| off.value) {
            manager.generate_request_id = Some(false);
        }
        let port = wanted.x_forwarded_port.as_ref().and_then(|own| own.enabled.as_ref());
        manager.append_x_forwarded_port = port.is_some_and(|on| on.value);
    }
}

/// Header names are written as they came.
fn preserving() -> HeaderKeyFormat {
    HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".into(),
            typed_config: Some(proto::Any::pack(&PreserveCaseFormatterConfig::default())),
        })),
    }
}
