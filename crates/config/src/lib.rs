//! The objects that users write: their kinds, how they are read, what is wrong
//! with them, and the store that holds those in force.
//!
//! [`kind`] is the table of kinds; a new kind is one row there and one file of
//! rules. Nothing here knows Envoy, but
//! for the pieces of its configuration that people write in patches ([`patch`]).

pub mod admission;
pub mod digest;
pub mod json;
pub mod jwks;
pub mod kind;
pub mod kube;
mod object;
pub mod patch;
pub mod path_template;
mod problem;
mod selector;
mod store;
pub mod validate;
pub mod yaml;

pub use kind::{Kind, Spec, SpecKind};
pub use object::{Key, Meta, Object, OwnerReference, Position};
pub use problem::{Problem, Severity};
pub use selector::{matches, workload_matches};
pub use store::Store;
pub use validate::is_header_name;
