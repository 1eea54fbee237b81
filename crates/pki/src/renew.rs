//! When to renew a certificate.

use std::time::{Duration, SystemTime};

/// Time from `now` until a certificate should be renewed.
///
/// `ratio` is the part of the lifetime that is left at that moment and `jitter`
/// is added to it, so that proxies that started together do not renew together
/// (Istio's `SECRET_GRACE_PERIOD_RATIO` and `_JITTER`). Zero when it is due.
#[must_use]
pub fn delay(issued: SystemTime, expires: SystemTime, ratio: f64, jitter: f64, now: SystemTime) -> Duration {
    let lifetime = expires.duration_since(issued).unwrap_or_default();
    let grace = lifetime.mul_f64((ratio + jitter).clamp(0.0, 1.0));
    let left = expires.duration_since(now).unwrap_or_default();
    left.saturating_sub(grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_at_the_ratio() {
        let start = SystemTime::UNIX_EPOCH;
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let end = start + hours(24);
        assert_eq!(delay(start, end, 0.5, 0.0, start), hours(12));
        assert_eq!(delay(start, end, 0.5, 0.0, start + hours(12)), Duration::ZERO);
        assert_eq!(delay(start, end, 0.5, 0.0, start + hours(99)), Duration::ZERO);
        let later = delay(start, end, 0.5, -0.01, start);
        assert!((later.as_secs_f64() - 12.24 * 3600.0).abs() < 1.0);
        assert_eq!(delay(start, end, 7.0, 0.0, start), Duration::ZERO);
    }
}
