//! Whether anybody may look at what Envoy's filter `grpc_stats` leaves behind.

use serde::Serialize;

/// Envoy's name of the filter, and of what it leaves in the filter state of a call.
pub(crate) const NAME: &str = "envoy.filters.http.grpc_stats";

/// Whether a configuration names it in any way: as a place for a patch, in the format of a log,
/// in an expression or a script.
pub(crate) fn is_named_in(spec: &impl Serialize) -> bool {
    // What cannot be written as text is not read either; it is safer to say yes.
    serde_json::to_string(spec).map_or(true, |text| text.contains("grpc_stats"))
}
