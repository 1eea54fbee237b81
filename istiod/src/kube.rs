//! What istiod has to do with a Kubernetes API server.
//!
//! [`connect`] makes the one client of the program. Parts that ask the API
//! server for something (tokens, locks, ConfigMaps) get a [`Connection`], a
//! clone of which is cheap: its client keeps to the limits that were asked for,
//! and its `health` says whether the API server answers at all.

pub mod access;
mod connection;
pub mod leader;
mod limit;
pub mod mesh;

pub use connection::{Connection, Error, Settings, connect};
