//! Envoy: its bootstrap, its process, its admin interface, its end.

pub mod admin;
pub mod bootstrap;
pub mod connections;
pub mod drain;
pub mod found;
mod memory;
pub mod module;
pub mod process;
