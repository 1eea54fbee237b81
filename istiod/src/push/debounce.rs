//! Gathers changes that come in quick succession into one push.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When to push after changes: once it has been quiet for `after`, at the
/// latest `max` after the first (Istio's `PILOT_DEBOUNCE_AFTER` and `_MAX`).
#[derive(Clone, Debug)]
pub struct Debounce {
    after: Duration,
    max: Duration,
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    last: Instant,
    /// Longest time that all of the changes may wait.
    max: Duration,
}

/// Longest time that endpoints wait while others keep changing: requests fail
/// meanwhile, and sending them is cheap.
const ENDPOINTS_MAX: Duration = Duration::from_millis(500);

impl Debounce {
    /// With nothing pending.
    #[must_use]
    pub fn new(after: Duration, max: Duration) -> Self {
        Self { after, max, pending: None }
    }

    /// Something has changed now.
    pub fn changed(&mut self) {
        self.add(self.max);
    }

    /// Endpoints have changed now, and nothing else.
    pub fn endpoints_changed(&mut self) {
        self.add(self.max.min(ENDPOINTS_MAX));
    }

    fn add(&mut self, max: Duration) {
        let now = Instant::now();
        let (first, max) = self.pending.map_or((now, max), |pending| (pending.first, pending.max.max(max)));
        self.pending = Some(Pending { first, last: now, max });
    }

    /// Waits until a push is due and forgets the changes; for ever when there are none.
    ///
    /// May be dropped and called again without losing a change.
    pub async fn due(&mut self) -> Duration {
        let Some(pending) = self.pending else { return std::future::pending().await };
        sleep_until((pending.last + self.after).min(pending.first + pending.max)).await;
        self.pending = None;
        pending.first.elapsed_since()
    }
}

/// Time since an instant of tokio's clock, which tests can stop.
trait ElapsedSince {
    fn elapsed_since(self) -> Duration;
}

impl ElapsedSince for Instant {
    fn elapsed_since(self) -> Duration {
        Self::now().duration_since(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn waits_for_quiet() {
        let mut debounce = Debounce::new(100 * MS, 10_000 * MS);
        debounce.changed();
        tokio::time::sleep(60 * MS).await;
        debounce.changed();
        assert_eq!(debounce.due().await.as_millis(), 160);
        let idle = tokio::time::timeout(100_000 * MS, debounce.due()).await;
        assert!(idle.is_err(), "nothing is pending any more");
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_ever() {
        let mut debounce = Debounce::new(100 * MS, 500 * MS);
        let start = Instant::now();
        loop {
            debounce.changed();
            if tokio::time::timeout(50 * MS, debounce.due()).await.is_ok() {
                break;
            }
        }
        assert_eq!((Instant::now() - start).as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_alone_wait_for_a_moment_only() {
        let mut debounce = Debounce::new(100 * MS, 10_000 * MS);
        for others in [false, true] {
            let start = Instant::now();
            loop {
                debounce.endpoints_changed();
                if others {
                    debounce.changed();
                }
                if tokio::time::timeout(50 * MS, debounce.due()).await.is_ok() {
                    break;
                }
            }
            let waited = (Instant::now() - start).as_millis();
            assert_eq!(waited, if others { 10_000 } else { 500 });
        }
    }
}
