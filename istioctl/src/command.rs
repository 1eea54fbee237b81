//! The commands, one file each.

pub mod kube_inject;
pub mod proxy_status;
pub mod validate;
