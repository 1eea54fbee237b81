//! What people type when something is wrong: is this configuration right, do the
//! proxies have it, and what do they do with it?

pub mod args;
pub mod command;
pub mod dump;
pub mod failure;
pub mod graph;
pub mod json;
pub mod kubernetes;
mod output;
pub mod proxies;
pub mod query;
pub mod render;
pub mod schema;
pub mod why;
pub mod xds;
