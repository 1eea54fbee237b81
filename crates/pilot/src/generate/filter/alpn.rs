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
use crate::generate::http;
use crate::scope::Scope;
use crate::snapshot::{MtlsMode, Service};

const FILTER: &str = "envoy.filters.http.set_filter_state";

/// Protocols that say "requests" to a server of the mesh. It agrees to none of
/// them and reads from the first bytes which HTTP it is; so they fit connections
/// of HTTP/1 and of HTTP/2.
const PROTOCOLS: &str = "istio-http/1.1,istio";

/// Sets the protocols; in the form of a filter's settings for a route.
static ANNOUNCEMENT: LazyLock<Any> = LazyLock::new(|| {
    let value = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(PROTOCOLS.into())),
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
});

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    if !scope.snapshot.settings.features.alpn || place.direction == Direction::Inbound {
        return Vec::new();
    }
    vec![http::filter(FILTER, &Config::default())]
}

/// Has the filter announce requests on a route or to a weighted cluster. The
/// library of gRPC has no such filter.
pub(in crate::generate) fn announce(scope: Scope<'_>, settings: &mut BTreeMap<String, Any>) {
    if scope.snapshot.settings.features.alpn && !scope.proxy.is_proxyless {
        settings.insert(FILTER.into(), ANNOUNCEMENT.clone());
    }
}

/// Whether TLS to a port of a service, where there is any, is mutual TLS of the
/// mesh. Servers outside would be irritated by what is offered to servers inside;
/// to an endpoint without TLS nothing is offered.
pub(in crate::generate) fn takes_istio_mtls(
    scope: Scope<'_>,
    service: &Service,
    port: u16,
    subset: &str,
) -> bool {
    let rule = scope.rule(service);
    let of_subset = rule
        .and_then(|rule| rule.subsets.iter().find(|known| known.name == subset))
        .and_then(|subset| subset.traffic_policy.as_ref());
    let settings = rule.map(|rule| policy::for_port(rule.policy.as_ref(), of_subset, port));
    match settings.and_then(|settings| settings.tls).map(|tls| tls.mode()) {
        Some(mode) => mode == TlsMode::IstioMutual,
        None => {
            let authn = &scope.snapshot.authn;
            !service.is_external
                && scope.snapshot.mesh.has_auto_mtls()
                && authn.namespace_mode(&service.namespace) != MtlsMode::Disable
        }
    }
}
