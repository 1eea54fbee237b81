//! Type URLs of messages.

use prost::Name;

/// `type.googleapis.com/FULL.NAME` of a message type.
#[must_use]
pub fn type_url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}
