//! The wire: Rust types of Istio's API and of the parts of Envoy's API that
//! the mesh speaks. No logic.
//!
//! [`istio`] comes from the `.proto` files of this crate and reads and writes
//! the JSON and YAML that people know; [`envoy`] comes from Envoy's own files.

mod any;
mod generated;
pub mod name;
#[cfg(feature = "reflect")]
pub mod reflect;
pub mod wkt;

pub use any::Any;
pub use generated::envoy::{envoy, google, opentelemetry, udpa, validate, xds};
pub use generated::istio::istio;
