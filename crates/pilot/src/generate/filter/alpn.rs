//! Tells the server inside TLS that HTTP follows, in place of `istio.alpn`.

use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::Place;
use crate::scope::Scope;

/// Filters for requests.
pub(in crate::generate) fn http(_: Scope<'_>, _: Place<'_>) -> Vec<HttpFilter> {
    Vec::new()
}
