//! What is wrong with an object, in one form for logs, status, webhook and analysis.

use std::fmt;

use crate::{Key, Position};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object is in force, but hardly does what was meant.
    Warning,
    /// The object is not in force.
    Error,
}

/// Something that a user should mend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The object, when it could be told.
    pub object: Option<Key>,
    /// Where.
    pub position: Position,
    /// Path of the field, such as `spec.http[0].route[0].weight`; may be empty.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.position)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
