//! The wire contract of the mesh: names, ports, paths and the typed strings
//! that go between its programs.
//!
//! Nothing here does I/O or holds a policy; a constant or newtype is here when
//! two programs, or a program and Envoy, must agree on it to the letter.

pub mod annotation;
pub mod cluster_name;
pub mod header;
pub mod hostname;
pub mod label;
pub mod node;
pub mod path;
pub mod port;
pub mod revision;
pub mod spiffe;
pub mod type_url;

pub use cluster_name::{ClusterName, Direction};
pub use hostname::Hostname;
pub use node::{NodeId, NodeType};
pub use revision::Revision;
pub use spiffe::{Namespace, ServiceAccount, SpiffeId, TrustDomain};
pub use type_url::TypeUrl;
