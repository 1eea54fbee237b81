//! The back end that speaks to the iptables programs: rules as the text that
//! `iptables-save` prints, changed by one `iptables-restore` a family.

pub mod apply;
pub mod change;
pub mod parse;
pub mod print;
pub mod programs;
pub mod ruleset;
