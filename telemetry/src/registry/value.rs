//! The value of one series.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A value that all threads add to.
#[derive(Debug)]
pub enum Value {
    /// Goes up only.
    Counter(AtomicU64),
    /// The last value.
    Gauge(AtomicU64),
    /// How often which value: limits; how many were at most each and above the one
    /// before, and last those above all; the sum.
    Histogram(Arc<[f64]>, Box<[AtomicU64]>, AtomicU64),
}

impl Value {
    pub(super) const fn counter() -> Self {
        Self::Counter(AtomicU64::new(0))
    }

    pub(super) const fn gauge() -> Self {
        Self::Gauge(AtomicU64::new(0))
    }

    pub(super) fn histogram(limits: Arc<[f64]>) -> Self {
        let counts = (0..=limits.len()).map(|_| AtomicU64::new(0)).collect();
        Self::Histogram(limits, counts, AtomicU64::new(0))
    }

    #[allow(clippy::cast_precision_loss, reason = "limits are no finer than that")]
    pub(super) fn add(&self, value: u64) {
        match self {
            Self::Counter(count) => {
                count.fetch_add(value, Ordering::Relaxed);
            }
            Self::Gauge(last) => last.store(value, Ordering::Relaxed),
            Self::Histogram(limits, counts, sum) => {
                let bucket = limits.partition_point(|limit| *limit < value as f64);
                if let Some(count) = counts.get(bucket) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                sum.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// Of a counter or gauge the value, of a histogram the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Counter(value) | Self::Gauge(value) => value.load(Ordering::Relaxed),
            Self::Histogram(_, counts, _) => counts.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
        }
    }

    pub(super) fn render(&self, name: &str, labels: &str, text: &mut String) {
        match self {
            Self::Counter(value) | Self::Gauge(value) => {
                let _ = writeln!(text, "{name}{{{labels}}} {}", value.load(Ordering::Relaxed));
            }
            Self::Histogram(limits, counts, sum) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let mut total = 0;
                for (at, count) in counts.iter().enumerate() {
                    total += count.load(Ordering::Relaxed);
                    let _ = match limits.get(at) {
                        Some(limit) => {
                            writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{limit}\"}} {total}")
                        }
                        None => writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
                    };
                }
                let sum = sum.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}");
            }
        }
    }
}
