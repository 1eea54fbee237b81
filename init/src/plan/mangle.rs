//! Table `mangle`: what is dropped before anything else sees it.

use super::Table;
use crate::config::Config;
use crate::rule::{Match, Rule, Target};

const DROP: &str = "ISTIO_DROP";

/// Packets outside a connection's window are not translated back; the
/// application would see a stranger's address and reset (istio/istio#36566).
pub(super) fn table(config: &Config) -> Table {
    let mut mangle = Table::new("mangle");
    if config.drop_invalid {
        mangle.add("PREROUTING", Rule::new(Target::Jump(DROP)).when(Match::Invalid));
        mangle.add(DROP, Rule::new(Target::Drop));
    }
    mangle
}
