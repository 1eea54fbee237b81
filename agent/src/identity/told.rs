//! What was said last, so that the same is not said again and again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reasons that are remembered: one failure may show in turns, by address for
/// example.
const KEPT: usize = 8;
/// With so many reasons at hand, another one is said no sooner than this.
const PERIOD: Duration = Duration::from_secs(60);

/// The reasons of the last warnings about one thing, and when each was given.
#[derive(Debug, Default)]
pub struct Told(Mutex<VecDeque<(String, Instant)>>);

impl Told {
    /// Nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// Whether that reason is worth a warning: another one than all those
    /// before; remembers it.
    pub fn is_new(&self, reason: &str) -> bool {
        self.is_new_at(reason, Instant::now())
    }

    fn is_new_at(&self, reason: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.iter().any(|(before, _)| before == reason) {
            return false;
        }
        if last.len() >= KEPT {
            let is_soon = last.back().is_some_and(|(_, when)| now.saturating_duration_since(*when) < PERIOD);
            if is_soon {
                return false;
            }
            last.pop_front();
        }
        last.push_back((reason.to_owned(), now));
        true
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
        assert!(!told.is_new("a"), "reasons that take turns");
        told.clear();
        assert!(told.is_new("b"));
    }

    #[test]
    fn reasons_that_are_never_the_same_are_said_once_a_minute() {
        let (told, start) = (Told::new(), Instant::now());
        let said = (0..600).filter(|at| told.is_new_at(&at.to_string(), start + Duration::from_secs(*at)));
        assert_eq!(said.count(), KEPT + 9);
    }
}
