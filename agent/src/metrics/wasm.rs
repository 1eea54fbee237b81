//! What is counted of Wasm modules.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "written as they stand in the label")]
pub enum Fetched {
    /// The module is in the cache now.
    success,
    /// It could not be downloaded or stored.
    download_failure,
    /// The manifest of its image could not be had.
    manifest_failure,
    /// It is not the one that was asked for.
    checksum_mismatched,
    /// What came is no module.
    fetch_failure,
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "written as they stand in the label")]
pub enum Converted {
    /// Its code is a local file now.
    success,
    /// It asks for no remote code.
    no_remote_load,
    /// It cannot be read.
    unmarshal_failure,
    /// Its code could not be fetched.
    fetch_failure,
    /// It does not say where its code is.
    miss_remote_fetch_hint,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HitLabels {
    hit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    result: Fetched,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConversionLabels {
    result: Converted,
}

/// Counters of Wasm modules.
#[derive(Debug)]
pub struct Wasm {
    entries: Gauge,
    lookups: Family<HitLabels, Counter>,
    fetches: Family<FetchLabels, Counter>,
    conversions: Family<ConversionLabels, Counter>,
    duration: Histogram,
}

impl Wasm {
    /// Counters that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        // Milliseconds from 1 to 16384, as in Istio.
        let duration = Histogram::new(exponential_buckets(1.0, 2.0, 15));
        let counters = Self {
            entries: Gauge::default(),
            lookups: Family::default(),
            fetches: Family::default(),
            conversions: Family::default(),
            duration,
        };
        registry.register("wasm_cache_entries", "Wasm modules in the cache", counters.entries.clone());
        registry.register("wasm_cache_lookup_count", "Lookups of Wasm modules", counters.lookups.clone());
        registry.register("wasm_remote_fetch_count", "Fetches of Wasm modules", counters.fetches.clone());
        registry.register(
            "wasm_config_conversion_count",
            "Wasm resources that were looked at",
            counters.conversions.clone(),
        );
        registry.register(
            "wasm_config_conversion_duration",
            "Milliseconds until a Wasm resource could be passed on",
            counters.duration.clone(),
        );
        counters
    }

    /// So many modules are in the cache.
    pub fn entries(&self, count: usize) {
        self.entries.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A module was looked for in the cache.
    pub fn lookup(&self, hit: bool) {
        self.lookups.get_or_create(&HitLabels { hit }).inc();
    }

    /// A fetch has ended.
    pub fn fetched(&self, result: Fetched) {
        self.fetches.get_or_create(&FetchLabels { result }).inc();
    }

    /// A resource has been dealt with in that time.
    pub fn converted(&self, result: Converted, took: Duration) {
        self.conversions.get_or_create(&ConversionLabels { result }).inc();
        self.duration.observe(took.as_secs_f64() * 1000.0);
    }
}
