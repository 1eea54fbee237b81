//! The secret discovery service for Envoy: certificate and roots of the
//! workload, and those of files, pushed again whenever they change.

mod content;
mod delta;
pub mod external;
pub mod key_provider;
pub mod secret;
pub mod server;
mod sotw;
pub mod source;

#[cfg(test)]
mod tests;
