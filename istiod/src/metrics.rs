//! Counters of the control plane, named as Istio names them.

use names::TypeUrl;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use xds::Answer;

/// A label `type` (`cds`, `eds`, …).
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Type {
    r#type: String,
}

/// A label `error`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    error: String,
}

/// All counters; cheap to update from any task.
#[derive(Debug, Default)]
pub struct Metrics {
    pushes: Family<Type, Counter>,
    rejects: Family<Type, Counter>,
    expired_nonces: Family<Type, Counter>,
    sign_errors: Family<Reason, Counter>,
    /// Certificate requests that came.
    pub csr_count: Counter,
    /// Certificate requests whose caller could not be told.
    pub authentication_failures: Counter,
    /// Certificates that were issued.
    pub issued: Counter,
    /// Objects of the configuration that could not be used.
    pub rejected_configs: Gauge,
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let pilot = registry.sub_registry_with_prefix("pilot");
        pilot.register("xds_pushes", "Responses sent, by type", self.pushes.clone());
        pilot.register("total_xds_rejects", "Responses that proxies refused, by type", self.rejects.clone());
        pilot.register(
            "xds_expired_nonce",
            "Answers to overtaken responses, by type",
            self.expired_nonces.clone(),
        );
        pilot.register(
            "total_rejected_configs",
            "Objects that cannot be used",
            self.rejected_configs.clone(),
        );
        let citadel = registry.sub_registry_with_prefix("citadel_server");
        citadel.register("csr_count", "Certificate requests", self.csr_count.clone());
        citadel.register(
            "authentication_failure_count",
            "Certificate requests of unknown callers",
            self.authentication_failures.clone(),
        );
        citadel.register(
            "csr_sign_err_count",
            "Certificate requests that were refused",
            self.sign_errors.clone(),
        );
        citadel.register("success_cert_issuance_count", "Certificates issued", self.issued.clone());
    }

    /// A response was sent.
    pub fn pushed(&self, answer: &Answer) {
        self.pushes.get_or_create(&of(&answer.type_url)).inc();
    }

    /// A response was refused.
    pub fn rejected(&self, type_url: &TypeUrl) {
        self.rejects.get_or_create(&of(type_url)).inc();
    }

    /// An answer came too late.
    pub fn expired_nonce(&self, type_url: &TypeUrl) {
        self.expired_nonces.get_or_create(&of(type_url)).inc();
    }

    /// A certificate request was refused.
    pub fn sign_error(&self, error: &str) {
        self.sign_errors.get_or_create(&Reason { error: error.into() }).inc();
    }
}

/// The label of a type; types that nobody serves share one.
fn of(type_url: &TypeUrl) -> Type {
    let name = if let TypeUrl::Other(_) = type_url { "other" } else { type_url.short() };
    Type { r#type: name.to_ascii_lowercase() }
}
