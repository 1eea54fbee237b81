//! The agent beside every Envoy: it gets the workload's certificate and serves
//! it over SDS, carries Envoy's xDS stream to istiod, starts Envoy and ends
//! with it.
//!
//! [`app`] puts the parts together; each part is usable on its own:
//! [`identity`] (key, request, renewal) publishes through a `watch` channel,
//! [`sds`] and [`ads`] serve Envoy, [`envoy`] runs it, [`status`] answers
//! probes. Nothing here reads the content of a configuration resource.

pub mod ads;
pub mod app;
pub mod command;
pub mod config;
pub mod dns;
pub mod envoy;
pub mod grpc_bootstrap;
pub mod identity;
pub mod metrics;
pub mod sds;
pub mod status;
pub mod unix;
pub mod upstream;
