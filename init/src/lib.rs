//! Redirects the traffic of a pod into its sidecar with the kernel's packet
//! filter: what Istio's init container does, with the same flags.
//!
//! `args + env → config → plan → work → told or done`: everything a user wrote
//! is checked before anything is touched; the plan is one value, which the back
//! ends (`iptables`, `nft`) render, compare with the live rules, apply and
//! remove, and on which `simulate` walks a packet.

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
