//! What was said last, so that the same is not said again and again.

use std::sync::{Mutex, PoisonError};

/// The reason of the last warning about one thing.
#[derive(Debug, Default)]
pub struct Told(Mutex<String>);

impl Told {
    /// Nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(String::new()))
    }

    /// Whether that reason is another one than last time; remembers it.
    pub fn is_new(&self, reason: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *last != reason;
        if is_new {
            reason.clone_into(&mut last);
        }
        is_new
    }

    /// All is well: whatever comes next is new.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_new_once() {
        let told = Told::new();
        assert!(told.is_new("a"));
        assert!(!told.is_new("a"));
        assert!(told.is_new("b"));
        told.clear();
        assert!(told.is_new("b"));
    }
}
