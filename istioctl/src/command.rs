//! The commands, one file each.

pub mod proxy_status;
pub mod validate;
