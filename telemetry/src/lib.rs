//! Istio's metrics and peer metadata exchange inside stock Envoy.
//!
//! The library is a *dynamic module*: a shared object that Envoy loads and calls
//! through a C interface. One HTTP filter exchanges the peers' metadata and counts
//! requests, one network filter counts connections, and a third filter adds what was
//! counted to Envoy's own answer at `/stats/prometheus`. See `docs/telemetry.md`.
//!
//! ```text
//! abi (hooks) -> http, tcp, scrape -> labels -> registry
//!                      |-> exchange -> peer
//! ```
//!
//! Everything but [`abi`] is safe code over the traits of [`attributes`], so it is
//! tested without an Envoy.

// The tests' programs have no Envoy to call.
#[cfg(not(test))]
pub mod abi;
pub mod attributes;
pub mod cache;
pub mod config;
pub mod exchange;
pub mod expression;
pub mod fault;
pub mod flags;
pub mod grpc;
pub mod http;
pub mod labels;
pub mod log;
pub mod node;
pub mod peer;
pub mod registry;
pub mod scrape;
pub mod settings;
pub mod tcp;
