//! Where objects come from: a source turns what it sees into [`Update`]s.
//!
//! A source translates nothing; it says which objects are in force and what is
//! wrong with those that are not.

pub mod directory;
pub mod file;
pub mod kubernetes;

use std::sync::Arc;

use config::{Key, Object, Problem};

/// What has changed since the update before. The first one of a source carries
/// everything it has.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Objects that are new or different.
    pub apply: Vec<Arc<Object>>,
    /// Objects that say what they said before, but stand at another place.
    pub moved: Vec<Arc<Object>>,
    /// Objects that are gone.
    pub delete: Vec<Key>,
    /// All problems there are now, those of earlier updates included.
    pub problems: Vec<Problem>,
}
