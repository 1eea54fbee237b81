//! One encoded xDS resource.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Name};

/// A named resource in encoded form; cloning it copies nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Name within its type.
    pub name: Arc<str>,
    /// The encoded message (the value of its `Any`).
    pub body: Bytes,
    /// Hash of the body: equal bodies have equal versions, also after a restart.
    pub version: u64,
    /// A cluster that is of no use before its endpoints have come by EDS.
    pub awaits_endpoints: bool,
}

impl fmt::Debug for Resource {
    /// Without the body, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, body, version, awaits_endpoints } = self;
        f.debug_struct("Resource")
            .field("name", name)
            .field("bytes", &body.len())
            .field("version", &version_text(*version))
            .field("awaits_endpoints", awaits_endpoints)
            .finish()
    }
}

impl Resource {
    /// Encodes a message under that name.
    #[must_use]
    pub fn encode<M: Message + Name>(name: impl Into<Arc<str>>, message: &M) -> Self {
        Self::from_bytes(name, message.encode_to_vec().into())
    }

    /// A resource whose message is encoded already.
    #[must_use]
    pub fn from_bytes(name: impl Into<Arc<str>>, body: Bytes) -> Self {
        let version = foldhash::quality::FixedState::with_seed(0).hash_one(&body[..]);
        Self { name: name.into(), body, version, awaits_endpoints: false }
    }

    /// Says whether it is a cluster whose endpoints come by EDS.
    #[must_use]
    pub fn awaits_endpoints(self, awaits_endpoints: bool) -> Self {
        Self { awaits_endpoints, ..self }
    }

    /// The version as it stands on the wire.
    #[must_use]
    pub fn version_text(&self) -> String {
        version_text(self.version)
    }
}

/// Text form of a resource version.
pub(crate) fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bodies_have_equal_versions() {
        let of = |body: &'static [u8]| Resource::from_bytes("a", Bytes::from_static(body)).version;
        assert_eq!(of(b"one"), of(b"one"));
        assert_ne!(of(b"one"), of(b"two"));
    }
}
