//! Who is told of each request and connection (Telemetry and MeshConfig).

use proto::envoy::config::accesslog::v3::AccessLog;

use super::{Direction, Place};
use crate::scope::Scope;

/// Of requests.
pub(in crate::generate) fn http(_: Scope<'_>, _: Place<'_>) -> Vec<AccessLog> {
    Vec::new()
}

/// Of connections.
pub(in crate::generate) fn tcp(_: Scope<'_>, _: Place<'_>) -> Vec<AccessLog> {
    Vec::new()
}

/// Of connections that no filter chain takes.
pub(in crate::generate) fn listener(_: Scope<'_>, _: Direction) -> Vec<AccessLog> {
    Vec::new()
}
