//! Counters of injection, named as Istio names them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds that an injection may take.
const SECONDS: [f64; 8] = [0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    /// Questions that came.
    pub requests: Counter,
    /// Those that were answered, also with a refusal.
    pub success: Counter,
    /// Pods that must not run, and questions that could not be read.
    pub failure: Counter,
    /// Pods that are not injected.
    pub skip: Counter,
    /// Seconds until the answer.
    pub time: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            success: Counter::default(),
            failure: Counter::default(),
            skip: Counter::default(),
            time: Histogram::new(SECONDS),
        }
    }
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let injection = registry.sub_registry_with_prefix("sidecar_injection");
        injection.register("requests", "Questions about pods", self.requests.clone());
        injection.register("success", "Questions about pods that were answered", self.success.clone());
        injection.register("failure", "Pods that could not be injected", self.failure.clone());
        injection.register("skip", "Pods that are not injected", self.skip.clone());
        injection.register("time_seconds", "Seconds to answer a question about a pod", self.time.clone());
    }
}
