//! What happens when this module's own code panics: the request goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::log;

/// Panics of this process.
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Whether one filter configuration still does anything.
#[derive(Debug, Default)]
pub struct Switch {
    off: AtomicBool,
}

impl Switch {
    /// Runs one hook. After a panic, and ever after, the answer is `fallback`.
    pub fn guard<R>(&self, hook: &'static str, fallback: R, run: impl FnOnce() -> R) -> R {
        if self.is_off() {
            return fallback;
        }
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.off.store(true, Ordering::Relaxed);
            count(hook);
            fallback
        })
    }

    /// Whether a panic has switched it off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }
}

/// Runs what belongs to no configuration (yet).
pub fn guard<R>(hook: &'static str, fallback: R, run: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        count(hook);
        fallback
    })
}

fn count(hook: &str) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    // Logging calls Envoy only; should that panic too, all is lost anyhow.
    log::error(&format!("a fault in {hook}: this filter switches itself off until its next configuration"));
}

/// Panics so far.
#[must_use]
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// Panics where `ISTIO_TELEMETRY_TEST_FAULT` names the hook: for the tests, and not in
/// the module that is delivered.
#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "the test's environment")]
pub fn test(hook: &str) {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("ISTIO_TELEMETRY_TEST_FAULT").ok());
    assert!(wanted.as_deref() != Some(hook), "a fault in {hook}, as the test asked");
}

/// Nothing, outside of tests.
#[cfg(not(debug_assertions))]
pub const fn test(_hook: &str) {}

#[cfg(test)]
mod tests {
    use super::{Switch, faults};

    #[test]
    fn a_panic_is_counted_and_switches_off() {
        let switch = Switch::default();
        assert_eq!(switch.guard("a", 0, || 1), 1);
        let before = faults();
        assert_eq!(switch.guard("a", 0, || panic!("as the test asked")), 0);
        assert!(faults() > before);
        assert_eq!(switch.guard("a", 0, || 1), 0, "off for good");
    }
}
