//! The commands, one file each.

pub mod analyze;
pub mod completion;
pub mod dashboard;
pub mod envoy_stats;
pub mod internal_debug;
pub mod kube_inject;
pub mod proxy_config;
pub mod proxy_status;
pub mod validate;
pub mod version;
pub mod why;
