//! The kernel's own packet filter, nf_tables, spoken to directly over netlink:
//! no program is run and nothing but NET_ADMIN is needed.
//!
//! `plan → lower → ruleset → compare with read → change → one batch`. A rule is
//! known in three forms: the plan's [`crate::rule::Rule`], words of nft's
//! language ([`clause`]), and the kernel's expressions ([`expr`]).

pub mod apply;
mod change;
pub mod clause;
mod code;
pub mod expr;
pub mod features;
mod iptables;
#[cfg(test)]
mod kernel_tests;
pub mod lower;
mod parse;
pub mod print;
pub mod raise;
pub mod read;
#[cfg(test)]
mod round_trip;
pub mod ruleset;
mod socket;
mod wire;

pub use apply::{Outcome, apply, has_ours, pending, remove_native};
pub use socket::Error;
