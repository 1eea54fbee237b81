//! Tells the server inside TLS that HTTP follows.
//!
//! A server that does not know the protocol of a port tells requests from other
//! bytes by what the client offers in the TLS handshake (ALPN). Istio's build of
//! Envoy has `istio.alpn` for it; stock Envoy lets a filter set what is offered.
//! The filter stands empty in every chain; the routes say where it acts. Istio's
//! build knows this filter too, so nothing differs for it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proto::Any;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::substitution_format_string::Format;
use proto::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use proto::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use proto::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{Key, Value};
use proto::envoy::extensions::filters::http::set_filter_state::v3::Config;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;

use super::{Direction, Place};
use crate::generate::cluster::policy;
use crate::generate::cluster::pool::upgrades_to_http2;
use crate::generate::http;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::{MtlsMode, Service};

const FILTER: &str = "envoy.filters.http.set_filter_state";

/// What the connections to a destination speak, as far as it is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::generate) enum Upstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the client speaks.
    Downstream,
}

/// Sets what is offered; in the form of a filter's settings for a route.
///
/// The names with `istio` say "requests" to a server of the mesh. The last one is
/// for servers with a certificate of the mesh and no sidecar, some of which insist
/// on a protocol that they know; where the client's is taken over, none would do.
fn announcement(upstream: Upstream) -> &'static Any {
    static ALL: LazyLock<[Any; 3]> = LazyLock::new(|| {
        ["istio-http/1.1,istio,http/1.1", "istio-h2,istio,h2", "istio-http/1.1,istio"].map(setting)
    });
    let [http1, http2, downstream] = &*ALL;
    match upstream {
        Upstream::Http1 => http1,
        Upstream::Http2 => http2,
        Upstream::Downstream => downstream,
    }
}

fn setting(protocols: &str) -> Any {
    let value = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(protocols.into())),
            ..DataSource::default()
        })),
        ..SubstitutionFormatString::default()
    };
    Any::pack(&Config {
        on_request_headers: vec![FilterStateValue {
            key: Some(Key::ObjectKey("envoy.network.application_protocols".into())),
            value: Some(Value::FormatString(value)),
            ..FilterStateValue::default()
        }],
        ..Config::default()
    })
}

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    if !scope.snapshot.settings.features.alpn || place.direction == Direction::Inbound {
        return Vec::new();
    }
    vec![http::filter(FILTER, &Config::default())]
}

/// Has the filter announce requests on a route or to a weighted cluster. The
/// library of gRPC has no such filter.
pub(in crate::generate) fn announce(
    scope: Scope<'_>,
    settings: &mut BTreeMap<String, Any>,
    upstream: Upstream,
) {
    if scope.snapshot.settings.features.alpn && !scope.proxy.is_proxyless {
        settings.insert(FILTER.into(), announcement(upstream).clone());
    }
}

/// What connections to a port of a service speak, if TLS to it, where there is
/// any, is mutual TLS of the mesh. Servers outside would be irritated by what is offered to servers inside;
/// to an endpoint without TLS nothing is offered.
pub(in crate::generate) fn takes_istio_mtls(
    scope: Scope<'_>,
    service: &Service,
    port: u16,
    subset: &str,
) -> Option<Upstream> {
    let rule = scope.rule(service);
    let of_subset = rule
        .and_then(|rule| rule.subsets.iter().find(|known| known.name == subset))
        .and_then(|subset| subset.traffic_policy.as_ref());
    let settings = rule.map(|rule| policy::for_port(rule.policy.as_ref(), of_subset, port));
    let is_mutual = match settings.as_ref().and_then(|settings| settings.tls).map(|tls| tls.mode()) {
        Some(mode) => mode == TlsMode::IstioMutual,
        None => {
            let authn = &scope.snapshot.authn;
            !service.is_external
                && scope.snapshot.mesh.has_auto_mtls()
                && authn.namespace_mode(&service.namespace) != MtlsMode::Disable
        }
    };
    if !is_mutual {
        return None;
    }
    let protocol = service.port(port).map_or(Protocol::Auto, |port| port.protocol);
    let pool = settings.and_then(|settings| settings.connection_pool);
    let http = pool.and_then(|pool| pool.http.as_ref());
    Some(match protocol {
        _ if http.is_some_and(|http| http.use_client_protocol) => Upstream::Downstream,
        _ if protocol.is_http2() || upgrades_to_http2(pool, &scope.snapshot.mesh, protocol) => {
            Upstream::Http2
        }
        _ if protocol.is_http() => Upstream::Http1,
        _ => Upstream::Downstream,
    })
}
