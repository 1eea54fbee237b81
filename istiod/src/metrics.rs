//! Counters of the control plane, named as Istio names them.

mod build;
mod exposition;
mod label;
mod present;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::{Key, Kind, Problem, Severity};
use names::TypeUrl;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use source::Update;
use xds::Answer;

use self::label::{Object, Reason, Refusal, Type, Version, code, of, whole};
use self::present::{Counted, Present};
use self::time::{ByType, INDEXING, PROXY, SECONDS, SENDING, bytes_by_type, histogram, seconds_by_type};
use crate::world::World;

pub use build::Build;
pub use exposition::{MEDIA_TYPE, page};

/// Types whose refusals have a gauge of their own.
const OWN_REJECTS: [(&str, TypeUrl); 4] = [
    ("xds_cds_reject", TypeUrl::Cluster),
    ("xds_eds_reject", TypeUrl::Endpoint),
    ("xds_lds_reject", TypeUrl::Listener),
    ("xds_rds_reject", TypeUrl::Route),
];
/// Istio's word for a certificate request that cannot be read.
const UNREADABLE: &str = "CSR_ERROR";
/// Objects that are counted by name; more share a series.
const MOST_OBJECTS: usize = 1000;

/// All counters; cheap to update from any task.
#[derive(Debug)]
pub struct Metrics {
    pushes: Family<Type, Counter>,
    rejects: Family<Type, Counter>,
    own_rejects: [Present<Refusal>; 4],
    expired_nonces: Family<Type, Counter>,
    sign_errors: Family<Reason, Counter>,
    secrets_refused: Counter,
    connected: Present<Version>,
    services: Gauge,
    virtual_services: Gauge,
    triggers: Family<Type, Counter>,
    updates: Family<Type, Counter>,
    /// What has changed since the last configuration, by the word for it.
    pending: Mutex<BTreeMap<&'static str, u64>>,
    largest_request: Gauge,
    push_time: ByType,
    config_size: ByType,
    send_time: Histogram,
    queue_time: Histogram,
    convergence_time: Histogram,
    debounce_time: Histogram,
    build_time: Histogram,
    write_timeouts: Counter,
    internal_errors: Counter,
    keys_fetched: Counter,
    keys_failed: Counter,
    /// Certificate requests that came.
    pub csr_count: Counter,
    /// Certificate requests whose caller could not be told.
    pub authentication_failures: Counter,
    csr_parsing_errors: Counter,
    /// Certificates that were issued.
    pub issued: Counter,
    rejected: Gauge,
    rejected_by_object: Family<Object, Counter>,
    /// Objects that cannot be used now, and all that were counted by name.
    known_rejected: Mutex<(BTreeSet<Object>, BTreeSet<Object>)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            pushes: Family::default(),
            rejects: Family::default(),
            own_rejects: Default::default(),
            expired_nonces: Family::default(),
            sign_errors: Family::default(),
            secrets_refused: Counter::default(),
            connected: Present::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
            triggers: Family::default(),
            updates: Family::default(),
            pending: Mutex::default(),
            largest_request: Gauge::default(),
            push_time: seconds_by_type(),
            config_size: bytes_by_type(),
            send_time: histogram(SENDING),
            queue_time: histogram(PROXY),
            convergence_time: histogram(PROXY),
            debounce_time: histogram(SECONDS),
            build_time: histogram(INDEXING),
            write_timeouts: Counter::default(),
            internal_errors: Counter::default(),
            keys_fetched: Counter::default(),
            keys_failed: Counter::default(),
            csr_count: Counter::default(),
            authentication_failures: Counter::default(),
            csr_parsing_errors: Counter::default(),
            issued: Counter::default(),
            rejected: Gauge::default(),
            rejected_by_object: Family::default(),
            known_rejected: Mutex::default(),
        }
    }
}

/// Counts a connection as long as it is there, with what its proxy refused.
#[derive(Debug)]
pub struct Connected {
    node: String,
    rejects: BTreeMap<(usize, String), Counted<Refusal>>,
    _version: Counted<Version>,
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let pilot = registry.sub_registry_with_prefix("pilot");
        pilot.register("xds_pushes", "Responses sent, by type", self.pushes.clone());
        pilot.register("total_xds_rejects", "Responses that proxies refused, by type", self.rejects.clone());
        for ((name, _), gauge) in OWN_REJECTS.iter().zip(&self.own_rejects) {
            pilot.register(*name, "Responses of the type that connected proxies refused", gauge.family());
        }
        pilot.register(
            "xds_expired_nonce",
            "Answers to overtaken responses, by type",
            self.expired_nonces.clone(),
        );
        pilot.register("xds", "Connected proxies, by version", self.connected.family());
        pilot.register("services", "Services", self.services.clone());
        pilot.register("virt_services", "VirtualServices", self.virtual_services.clone());
        pilot.register(
            "push_triggers",
            "Changes that were pushed, by what they are of",
            self.triggers.clone(),
        );
        pilot.register("inbound_updates", "Changes of objects, by type", self.updates.clone());
        let largest = self.largest_request.clone();
        pilot.register("xds_recv_max", "Bytes of the largest request so far", largest);
        pilot.register("xds_push_time", "Seconds to translate, by type", self.push_time.clone());
        pilot.register("xds_config_size_bytes", "Bytes of responses, by type", self.config_size.clone());
        pilot.register("xds_send_time", "Seconds until a response was taken", self.send_time.clone());
        pilot.register(
            "proxy_queue_time",
            "Seconds that a proxy waited for its turn",
            self.queue_time.clone(),
        );
        pilot.register(
            "proxy_convergence_time",
            "Seconds from a change until a proxy was sent all that it changes there",
            self.convergence_time.clone(),
        );
        pilot.register("debounce_time", "Seconds that changes were gathered", self.debounce_time.clone());
        pilot.register(
            "pushcontext_init_seconds",
            "Seconds to index a configuration",
            self.build_time.clone(),
        );
        let refused = self.secrets_refused.clone();
        pilot.register("sds_certificate_errors", "Secrets that proxies asked for and did not get", refused);
        pilot.register("xds_write_timeout", "Responses not taken in time", self.write_timeouts.clone());
        pilot.register("total_xds_internal_errors", "Streams ended by a fault", self.internal_errors.clone());
        pilot.register(
            "total_rejected_configs",
            "Times that an object, or a change of it, could not be used",
            self.rejected_by_object.clone(),
        );
        pilot.register("rejected_configs", "Objects that cannot be used now", self.rejected.clone());
        pilot.register(
            "jwks_resolver_network_fetch_success",
            "Key sets of token issuers that were fetched",
            self.keys_fetched.clone(),
        );
        pilot.register(
            "jwks_resolver_network_fetch_fail",
            "Key sets of token issuers that could not be fetched",
            self.keys_failed.clone(),
        );
        let citadel = registry.sub_registry_with_prefix("citadel_server");
        citadel.register("csr_count", "Certificate requests", self.csr_count.clone());
        citadel.register(
            "authentication_failure_count",
            "Certificate requests of unknown callers",
            self.authentication_failures.clone(),
        );
        citadel.register(
            "csr_parsing_err_count",
            "Certificate requests that could not be read",
            self.csr_parsing_errors.clone(),
        );
        citadel.register(
            "csr_sign_err_count",
            "Certificate requests that were refused",
            self.sign_errors.clone(),
        );
        citadel.register("success_cert_issuance_count", "Certificates issued", self.issued.clone());
    }

    /// A response is sent.
    pub fn pushed(&self, answer: &Answer) {
        self.pushes.get_or_create(&of(&answer.type_url)).inc();
        let bytes: usize = answer.resources.iter().map(|resource| resource.body.len()).sum();
        self.config_size.get_or_create(&whole(&answer.type_url)).observe(bytes as f64);
    }

    /// A response was not taken in time.
    pub fn timed_out(&self, type_url: &TypeUrl) {
        self.write_timeouts.inc();
        let label = of(type_url);
        self.pushes.get_or_create(&Type::new(format!("{}_senderr", label.r#type))).inc();
    }

    /// A stream ends by a fault of ours.
    pub fn internal_error(&self) {
        self.internal_errors.inc();
    }

    /// A request of that size came.
    pub fn received(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if bytes > self.largest_request.get() {
            self.largest_request.set(bytes);
        }
    }

    /// A response was refused, with a code of gRPC as the reason.
    pub fn rejected(&self, connected: &mut Connected, type_url: &TypeUrl, error: i32) {
        self.rejects.get_or_create(&of(type_url)).inc();
        let Some(index) = OWN_REJECTS.iter().position(|(_, known)| known == type_url) else { return };
        let err = code(error);
        match connected.rejects.get_mut(&(index, err.clone())) {
            Some(counted) => counted.again(),
            None => {
                let labels = Refusal { node: connected.node.clone(), err: err.clone() };
                connected.rejects.insert((index, err), self.own_rejects[index].count(labels));
            }
        }
    }

    /// An answer came too late.
    pub fn expired_nonce(&self, type_url: &TypeUrl) {
        self.expired_nonces.get_or_create(&of(type_url)).inc();
    }

    /// A proxy does not get a secret that it asks for.
    pub fn secret_refused(&self) {
        self.secrets_refused.inc();
    }

    /// A key set was fetched, or not.
    pub fn fetched_keys(&self, is_fetched: bool) {
        if is_fetched {
            self.keys_fetched.inc()
        } else {
            self.keys_failed.inc()
        };
    }

    /// A certificate request was refused.
    pub fn sign_error(&self, error: &str) {
        self.sign_errors.get_or_create(&Reason { error: error.into() }).inc();
        if error == UNREADABLE {
            self.csr_parsing_errors.inc();
        }
    }

    /// A proxy of that name and version has come.
    #[must_use]
    pub fn connected(&self, node: String, version: &str) -> Connected {
        let version = if version.is_empty() { "unknown" } else { version };
        let version = self.connected.count(Version { version: version.into() });
        Connected { node, rejects: BTreeMap::new(), _version: version }
    }

    /// Resources of a type were translated.
    pub fn generated(&self, type_url: &TypeUrl, took: Duration) {
        self.push_time.get_or_create(&of(type_url)).observe(took.as_secs_f64());
    }

    /// A proxy had to wait before its resources were translated.
    pub fn queued(&self, waited: Duration) {
        self.queue_time.observe(waited.as_secs_f64());
    }

    /// A response was handed to the transport.
    pub fn sent(&self, took: Duration) {
        self.send_time.observe(took.as_secs_f64());
    }

    /// A proxy was sent all that a change changes for it.
    pub fn converged(&self, took: Duration) {
        self.convergence_time.observe(took.as_secs_f64());
    }

    /// Changes were gathered for that long.
    pub fn debounced(&self, waited: Duration) {
        self.debounce_time.observe(waited.as_secs_f64());
    }

    /// Something happened that the next configuration is made for.
    pub fn triggered(&self, reason: &'static str) {
        *self.pending().entry(reason).or_default() += 1;
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // Numbers are whole whatever a panic left behind.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A configuration was indexed.
    pub fn built(&self, world: &Arc<World>, took: Duration) {
        self.build_time.observe(took.as_secs_f64());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.services.set(count(world.snapshot.services.len()));
        self.virtual_services.set(count(world.store.shared(Kind::VirtualService).count()));
        for (reason, number) in std::mem::take(&mut *self.pending()) {
            self.triggers.get_or_create(&Type::new(reason)).inc_by(number);
        }
    }

    /// Objects have changed.
    pub fn updates(&self, update: &Update) {
        let applied = update.apply.iter().map(|object| (&object.key, false));
        for (key, is_gone) in applied.chain(update.delete.iter().map(|key| (key, true))) {
            self.updates.get_or_create(&Type::new(update_type(key, is_gone))).inc();
            self.triggered(trigger(key));
        }
    }

    /// These are wrong with objects now.
    pub fn problems<'a>(&self, problems: impl Iterator<Item = &'a Problem>) {
        let errors: Vec<&Problem> = problems.filter(|problem| problem.severity == Severity::Error).collect();
        self.rejected.set(i64::try_from(errors.len()).unwrap_or(i64::MAX));
        let objects = errors.iter().filter_map(|problem| problem.object.as_ref());
        let now: BTreeSet<Object> = objects.map(object_label).collect();
        let mut known = self.known_rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, named) = &mut *known;
        for object in now.difference(before) {
            let mut label = object.clone();
            if named.len() < MOST_OBJECTS {
                named.insert(label.clone());
            } else if !named.contains(&label) {
                label.name.clear();
            }
            self.rejected_by_object.get_or_create(&label).inc();
        }
        *before = now;
    }
}

fn object_label(key: &Key) -> Object {
    Object { r#type: key.kind.as_str().to_ascii_lowercase(), name: format!("{}/{}", key.namespace, key.name) }
}

/// The word for a change of an object.
fn update_type(key: &Key, is_gone: bool) -> &'static str {
    match key.kind {
        Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => "eds",
        Kind::Service if is_gone => "svcdelete",
        Kind::Service => "svc",
        _ => "config",
    }
}

/// The word for what it is a change of, where pushes are counted.
fn trigger(key: &Key) -> &'static str {
    match key.kind {
        Kind::EndpointSlice | Kind::Endpoints | Kind::Pod | Kind::Node => "endpoint",
        Kind::Service => "service",
        Kind::Secret => "secret",
        Kind::Namespace => "namespace",
        _ => "config",
    }
}

#[cfg(test)]
mod tests;
