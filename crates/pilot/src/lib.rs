//! Pilot: translates the objects in force into Envoy resources for one proxy.
//!
//! [`Snapshot`] indexes the objects once for all proxies, `scope` says what of
//! it a proxy sees, and [`mod@generate`] writes Envoy's messages. Everything is a
//! function of its arguments: no socket, no clock, nothing that waits. The same
//! input gives the same bytes.

pub mod cache;
mod class;
pub mod depend;
pub mod finding;
pub mod generate;
mod memo;
mod patch;
mod place;
pub mod protocol;
mod proxy;
mod rbac;
pub mod register;
mod scope;
mod served;
mod settings;
pub mod snapshot;
pub mod survey;
#[cfg(test)]
mod testing;

pub use generate::generate;
pub use proxy::{Error, Interception, Proxy, ProxyKind};
pub use served::served;
pub use settings::{Features, GatewayNames, KeyFetch, KeySets, Percentage, SessionLabels, Settings};
pub use snapshot::Snapshot;
