//! Envoy's xDS stream, carried to istiod as it is.

pub mod proxy;
pub mod relay;
