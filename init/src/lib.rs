//! Redirects the traffic of a pod into its sidecar with the kernel's packet
//! filter: what Istio's init container does, with the same flags.
//!
//! `args + env → config → plan → state → compare → apply`: everything a user
//! wrote is checked before anything is touched; the plan is one value from
//! which the wanted rules are rendered, compared with the live ones, applied
//! and removed.

pub mod app;
pub mod args;
pub mod capability;
pub mod command;
pub mod config;
pub mod detect;
pub mod family;
pub mod iptables;
pub mod live;
pub mod namespace;
pub mod nft;
pub mod passthrough;
pub mod plan;
pub mod route;
pub mod rule;
pub mod simulate;
pub mod status;
pub mod trace;
pub mod validate;
pub mod work;
