//! Comparison with what another implementation answered on the same inputs.

pub mod accept;
pub mod analyze;
pub mod authz;
pub mod ca;
pub mod difference;
pub mod init;
pub mod inject;
pub mod istioctl;
pub mod validate;
pub mod xds;
pub mod xds_push;

use std::fmt;

/// How many cases came out how.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Name of the set.
    pub set: &'static str,
    /// Cases that are equal without any rule.
    pub equal: usize,
    /// Cases that are equal once listed differences are taken away.
    pub listed: usize,
    /// Cases that differ.
    pub different: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, equal, listed, different } = self;
        write!(f, "{set}: {equal} equal, {listed} listed, {different} different")
    }
}

/// Whether a name is meant: a trailing `*` stands for any rest.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}
