//! Counters of registration, named as Istio names them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Entries that were made.
    pub success: Counter,
    /// Entries whose workload has come back.
    pub updates: Counter,
    /// Entries whose workload has left.
    pub unregister: Counter,
    /// Entries that were deleted after that.
    pub deletes: Counter,
    /// What could not be written.
    pub errors: Counter,
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registration = registry.sub_registry_with_prefix("auto_registration");
        registration.register("success", "WorkloadEntries that were made", self.success.clone());
        registration.register(
            "updates",
            "WorkloadEntries whose workload has come back",
            self.updates.clone(),
        );
        registration.register(
            "unregister",
            "WorkloadEntries whose workload has left",
            self.unregister.clone(),
        );
        registration.register(
            "deletes",
            "WorkloadEntries that were deleted since their workload did not come back",
            self.deletes.clone(),
        );
        registration.register("errors", "WorkloadEntries that could not be written", self.errors.clone());
    }
}
