//! The secret discovery service for Envoy: certificate and roots of the
//! workload, pushed again whenever they change.

pub mod secret;
pub mod server;
