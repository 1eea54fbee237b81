//! Gauges of what is there now, whose labels proxies choose: a series is there
//! as long as it counts something, so that nobody fills the page for ever.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// A gauge for each set of labels that something now has.
#[derive(Debug)]
pub(super) struct Present<L: Labels> {
    family: Family<L, Gauge>,
    counts: Arc<Mutex<BTreeMap<L, i64>>>,
}

/// What labels must be able to do.
pub(super) trait Labels:
    Clone + Ord + Hash + std::fmt::Debug + EncodeLabelSet + Send + Sync + 'static
{
}

impl<T: Clone + Ord + Hash + std::fmt::Debug + EncodeLabelSet + Send + Sync + 'static> Labels for T {}

impl<L: Labels> Default for Present<L> {
    fn default() -> Self {
        Self { family: Family::default(), counts: Arc::default() }
    }
}

impl<L: Labels> Clone for Present<L> {
    fn clone(&self) -> Self {
        Self { family: self.family.clone(), counts: self.counts.clone() }
    }
}

impl<L: Labels> Present<L> {
    /// For a registry.
    pub(super) fn family(&self) -> Family<L, Gauge> {
        self.family.clone()
    }

    /// Counts something as long as the handle is there.
    pub(super) fn count(&self, labels: L) -> Counted<L> {
        let mut counted = Counted { present: self.clone(), labels, number: 0 };
        counted.again();
        counted
    }

    fn change(&self, labels: &L, by: i64) {
        // Numbers are whole whatever a panic left behind.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(labels.clone()).or_default();
        *count += by;
        if *count > 0 {
            self.family.get_or_create(labels).set(*count);
        } else {
            counts.remove(labels);
            self.family.remove(labels);
        }
    }
}

/// What was counted; dropped, it does not count any more.
#[derive(Debug)]
pub(super) struct Counted<L: Labels> {
    present: Present<L>,
    labels: L,
    number: i64,
}

impl<L: Labels> Counted<L> {
    /// Counts it once more.
    pub(super) fn again(&mut self) {
        self.number += 1;
        self.present.change(&self.labels, 1);
    }
}

impl<L: Labels> Drop for Counted<L> {
    fn drop(&mut self) {
        self.present.change(&self.labels, -self.number);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::super::label::Version;
    use super::super::page;
    use super::*;

    #[test]
    fn a_series_goes_with_the_last_that_it_counts() {
        let present = Present::default();
        let mut registry = Registry::default();
        registry.register("there", "Things", present.family());
        let version = |text: &str| Version { version: text.into() };
        let one = present.count(version("1"));
        let mut again = present.count(version("1"));
        again.again();
        let other = present.count(version("2"));
        let text = page(&registry).unwrap();
        assert!(
            text.contains("there{version=\"1\"} 3\n") && text.contains("there{version=\"2\"} 1\n"),
            "{text}"
        );
        drop((again, other));
        let text = page(&registry).unwrap();
        assert!(text.contains("there{version=\"1\"} 1\n") && !text.contains("\"2\""), "{text}");
        drop(one);
        assert!(!page(&registry).unwrap().contains("there{"));
    }
}
