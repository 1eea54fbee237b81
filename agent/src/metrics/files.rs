//! What is counted of certificates in files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::identity::{Identity, ResourceLabels, Seconds, left};

/// Counters of certificates in files; clones are the same.
#[derive(Clone, Debug)]
pub struct Files {
    watcher_failures: Counter,
    secret_failures: Counter,
    expiry: Family<ResourceLabels, Seconds>,
    ends: Arc<Mutex<BTreeMap<String, SystemTime>>>,
}

impl Files {
    /// Makes the metrics and adds them to a registry; when certificates end is
    /// told by the same metric as for the workload's own.
    #[must_use]
    pub fn register(registry: &mut Registry, identity: &Identity) -> Self {
        let (watcher_failures, secret_failures) = (Counter::default(), Counter::default());
        let help = "Files that the kernel does not watch";
        registry.register("num_file_watcher_failures", help, watcher_failures.clone());
        let help = "Files that could not be used for seconds";
        registry.register("num_file_secret_failures", help, secret_failures.clone());
        Self { watcher_failures, secret_failures, expiry: identity.expiry.clone(), ends: Arc::default() }
    }

    /// A file is not watched by the kernel.
    pub fn watch_failed(&self) {
        self.watcher_failures.inc();
    }

    /// Files cannot be used.
    pub fn secret_failed(&self) {
        self.secret_failures.inc();
    }

    /// A certificate was read from files.
    pub fn expires(&self, resource: &str, at: SystemTime) {
        self.ends().insert(resource.to_owned(), at);
    }

    /// Nobody asks for those files any more.
    pub fn forget(&self, resource: &str) {
        if self.ends().remove(resource).is_some() {
            self.expiry.remove(&ResourceLabels { resource_name: resource.to_owned() });
        }
    }

    /// Computes what depends on the time.
    pub fn update(&self, now: SystemTime) {
        for (resource, end) in &*self.ends() {
            self.expiry
                .get_or_create(&ResourceLabels { resource_name: resource.clone() })
                .set(left(*end, now));
        }
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<String, SystemTime>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
