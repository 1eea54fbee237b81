//! Control plane revision.

use std::fmt;

/// Name of a control plane revision; `default` when none is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(Box<str>);

impl Revision {
    /// A revision of that name; the empty name means `default`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(if name.is_empty() { "default".into() } else { name.into() })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::new("")
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
