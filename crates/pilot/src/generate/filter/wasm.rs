//! Extensions that users bring (WasmPlugin, TrafficExtension).

use proto::envoy::config::listener::v3::Filter;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::Place;
use crate::scope::Scope;

/// Where among the filters an extension stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::generate) enum Phase {
    /// Before tokens are checked.
    Authn,
    /// Before authorization.
    Authz,
    /// Before request metrics.
    Stats,
    /// After all of them.
    Unspecified,
}

/// Filters for requests.
pub(in crate::generate) fn http(_: Scope<'_>, _: Place<'_>, _: Phase) -> Vec<HttpFilter> {
    Vec::new()
}

/// Filters for connections.
pub(in crate::generate) fn network(_: Scope<'_>, _: Place<'_>, _: Phase) -> Vec<Filter> {
    Vec::new()
}
