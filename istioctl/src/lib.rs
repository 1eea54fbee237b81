//! What people type: is this configuration right, and do the proxies have it?

pub mod args;
pub mod command;
pub mod table;
