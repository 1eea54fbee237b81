//! Decisions by a server outside (AuthorizationPolicy: CUSTOM).

use proto::envoy::config::listener::v3::Filter;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::Place;
use crate::scope::Scope;

/// Filters for requests.
pub(in crate::generate) fn http(_: Scope<'_>, _: Place<'_>) -> Vec<HttpFilter> {
    Vec::new()
}

/// Filters for connections.
pub(in crate::generate) fn network(_: Scope<'_>, _: Place<'_>) -> Vec<Filter> {
    Vec::new()
}
