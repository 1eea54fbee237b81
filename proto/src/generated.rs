//! What the build script generates, in two trees.
#![allow(missing_docs, dead_code, clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub)]

/// Istio's API.
pub mod istio {
    include!(concat!(env!("OUT_DIR"), "/istio/tree.rs"));
}

/// Envoy's API and what it imports.
pub mod envoy {
    include!(concat!(env!("OUT_DIR"), "/envoy/tree.rs"));
}
