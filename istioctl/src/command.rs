//! The commands, one file each.

pub mod admin;
pub mod analyze;
pub mod authz;
pub mod bug_report;
pub mod check_inject;
pub mod completion;
pub mod create_remote_secret;
pub mod dashboard;
pub mod describe;
pub mod envoy_stats;
pub mod graph;
pub mod injector;
pub mod internal_debug;
pub mod kube_inject;
pub mod metrics;
pub mod precheck;
pub mod proxy_config;
pub mod proxy_status;
pub mod remote_clusters;
pub mod tag;
pub mod validate;
pub mod version;
pub mod wait;
pub mod why;
pub mod workload;
