//! What is counted of certificates and tokens.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    request_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResourceLabels {
    pub(super) resource_name: String,
}

pub(super) type Seconds = Gauge<f64, AtomicU64>;
/// One metric, which is shown or not.
type NoLabels = [(&'static str, &'static str); 0];

/// When things end; what is shown is the time that is left when it is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    certificate: Option<SystemTime>,
    roots: Option<SystemTime>,
    token: Option<SystemTime>,
}

/// Counters of certificates and tokens.
#[derive(Debug)]
pub struct Identity {
    /// Certificate requests that were sent.
    pub csr_requests: Counter,
    /// Certificate requests that failed.
    pub csr_failures: Counter,
    /// Calls that were repeated for the same request.
    pub csr_retries: Counter,
    /// Calls that were not made because the token had expired.
    pub expired_tokens: Counter,
    /// Writes of `OUTPUT_CERTS` that failed.
    pub output_failures: Counter,
    latency: Counter<f64, AtomicU64>,
    pub(super) expiry: Family<ResourceLabels, Seconds>,
    token_expiry: Family<NoLabels, Seconds>,
    ends: Mutex<Ends>,
}

impl Identity {
    /// Makes the metrics and adds them to a registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let csr = RequestLabels { request_type: "csr" };
        let mut outgoing = |name: &'static str, help: &'static str| {
            let family = Family::<RequestLabels, Counter>::default();
            registry.register(name, help, family.clone());
            family.get_or_create_owned(&csr)
        };
        let csr_requests = outgoing("num_outgoing_requests", "Requests to the CA");
        let csr_failures = outgoing("num_failed_outgoing_requests", "Requests to the CA that failed");
        let csr_retries = outgoing("num_outgoing_retries", "Calls of the CA that were repeated");
        let latency = Family::<RequestLabels, Counter<f64, AtomicU64>>::default();
        registry.register("outgoing_latency", "Milliseconds spent on requests to the CA", latency.clone());
        let expired_tokens = Counter::default();
        let help = "Calls of istiod not made because the token had expired";
        registry.register("expired_tokens", help, expired_tokens.clone());
        let output_failures = Counter::default();
        let help = "Failures to write certificates to OUTPUT_CERTS";
        registry.register("output_cert_failures", help, output_failures.clone());
        let expiry = Family::<ResourceLabels, Seconds>::default();
        registry.register("cert_expiry_seconds", "Time until the certificate ends", expiry.clone());
        // A family, which shows nothing while the end of the token is not known.
        let token_expiry = Family::<NoLabels, Seconds>::default();
        registry.register("token_expiry_seconds", "Time until the token ends", token_expiry.clone());
        Self {
            csr_requests,
            csr_failures,
            csr_retries,
            expired_tokens,
            output_failures,
            latency: latency.get_or_create_owned(&csr),
            expiry,
            token_expiry,
            ends: Mutex::default(),
        }
    }

    /// A request to the CA took that long, whatever came of it.
    pub fn csr_took(&self, time: Duration) {
        self.latency.inc_by(time.as_secs_f64() * 1000.0);
    }

    /// A new certificate and its roots are in force.
    pub fn certificate_ends(&self, leaf: SystemTime, roots: Option<SystemTime>) {
        self.change(|ends| (ends.certificate, ends.roots) = (Some(leaf), roots));
    }

    /// A token was read; `None` when its end is not known.
    pub fn token_ends(&self, at: Option<SystemTime>) {
        self.change(|ends| ends.token = at);
    }

    /// Computes what depends on the time.
    pub fn update(&self, now: SystemTime) {
        let ends = *self.ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (resource_name, end) in [("default", ends.certificate), ("ROOTCA", ends.roots)] {
            if let Some(end) = end {
                let labels = ResourceLabels { resource_name: resource_name.to_owned() };
                self.expiry.get_or_create(&labels).set(left(end, now));
            }
        }
        match ends.token {
            Some(end) => drop(self.token_expiry.get_or_create(&[]).set(left(end, now))),
            None => self.token_expiry.clear(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ends)) {
        change(&mut self.ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// Seconds until then; negative afterwards.
pub(super) fn left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}
