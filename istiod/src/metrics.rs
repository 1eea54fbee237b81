//! Counters of the control plane, named as Istio names them.

mod exposition;

use std::sync::Arc;
use std::time::Duration;

use config::{Key, Kind};
use names::TypeUrl;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use source::Update;
use xds::Answer;

use crate::world::World;

pub use exposition::{MEDIA_TYPE, page};

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

/// A label `version`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Version {
    version: String,
}

/// Seconds that a push may take.
const SECONDS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Bytes of a response.
const BYTES: [f64; 6] = [1.0, 10e3, 1e6, 4e6, 10e6, 40e6];

/// Seconds, in Istio's buckets.
#[derive(Clone, Debug)]
struct Times(Histogram);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(SECONDS))
    }
}

type ByType = Family<Type, Histogram, fn() -> Histogram>;

/// All counters; cheap to update from any task.
#[derive(Debug)]
pub struct Metrics {
    pushes: Family<Type, Counter>,
    rejects: Family<Type, Counter>,
    /// Refusals of the four types that have a counter of their own.
    own_rejects: [(&'static str, TypeUrl, Counter); 4],
    expired_nonces: Family<Type, Counter>,
    sign_errors: Family<Reason, Counter>,
    secrets_refused: Counter,
    connected: Family<Version, Gauge>,
    services: Gauge,
    virtual_services: Gauge,
    triggers: Family<Type, Counter>,
    updates: Family<Type, Counter>,
    push_time: ByType,
    config_size: ByType,
    send_time: Times,
    queue_time: Times,
    convergence_time: Times,
    debounce_time: Times,
    build_time: Times,
    /// Responses that a proxy did not take in time.
    pub write_timeouts: Counter,
    /// Streams that ended by a fault of ours.
    pub internal_errors: Counter,
    /// Key sets of token issuers that were fetched.
    keys_fetched: Counter,
    /// Those that could not be.
    keys_failed: Counter,
    /// Certificate requests that came.
    pub csr_count: Counter,
    /// Certificate requests whose caller could not be told.
    pub authentication_failures: Counter,
    /// Certificates that were issued.
    pub issued: Counter,
    /// Objects of the configuration that could not be used.
    pub rejected_configs: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let own = |name, type_url| (name, type_url, Counter::default());
        Self {
            pushes: Family::default(),
            rejects: Family::default(),
            own_rejects: [
                own("xds_cds_reject", TypeUrl::Cluster),
                own("xds_eds_reject", TypeUrl::Endpoint),
                own("xds_lds_reject", TypeUrl::Listener),
                own("xds_rds_reject", TypeUrl::Route),
            ],
            expired_nonces: Family::default(),
            sign_errors: Family::default(),
            secrets_refused: Counter::default(),
            connected: Family::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
            triggers: Family::default(),
            updates: Family::default(),
            push_time: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            config_size: Family::new_with_constructor(|| Histogram::new(BYTES)),
            send_time: Times::default(),
            queue_time: Times::default(),
            convergence_time: Times::default(),
            debounce_time: Times::default(),
            build_time: Times::default(),
            write_timeouts: Counter::default(),
            internal_errors: Counter::default(),
            keys_fetched: Counter::default(),
            keys_failed: Counter::default(),
            csr_count: Counter::default(),
            authentication_failures: Counter::default(),
            issued: Counter::default(),
            rejected_configs: Gauge::default(),
        }
    }
}

/// Counts a connection as long as it is there.
#[derive(Debug)]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let pilot = registry.sub_registry_with_prefix("pilot");
        pilot.register("xds_pushes", "Responses sent, by type", self.pushes.clone());
        pilot.register("total_xds_rejects", "Responses that proxies refused, by type", self.rejects.clone());
        for (name, _, counter) in &self.own_rejects {
            pilot.register(*name, "Responses of the type that proxies refused", counter.clone());
        }
        pilot.register(
            "xds_expired_nonce",
            "Answers to overtaken responses, by type",
            self.expired_nonces.clone(),
        );
        pilot.register("xds", "Connected proxies, by version", self.connected.clone());
        pilot.register("services", "Services", self.services.clone());
        pilot.register("virt_services", "VirtualServices", self.virtual_services.clone());
        pilot.register("push_triggers", "Pushes, by what caused them", self.triggers.clone());
        pilot.register("inbound_updates", "Changes of objects, by type", self.updates.clone());
        pilot.register("xds_push_time", "Seconds to translate, by type", self.push_time.clone());
        pilot.register("xds_config_size_bytes", "Bytes of responses, by type", self.config_size.clone());
        pilot.register("xds_send_time", "Seconds until a response was taken", self.send_time.0.clone());
        pilot.register(
            "proxy_queue_time",
            "Seconds that a proxy waited for its turn",
            self.queue_time.0.clone(),
        );
        pilot.register(
            "proxy_convergence_time",
            "Seconds from a configuration until a proxy was sent all of it",
            self.convergence_time.0.clone(),
        );
        pilot.register("debounce_time", "Seconds that changes were gathered", self.debounce_time.0.clone());
        pilot.register(
            "pushcontext_init_seconds",
            "Seconds to index a configuration",
            self.build_time.0.clone(),
        );
        let refused = self.secrets_refused.clone();
        pilot.register("sds_certificate_errors", "Secrets that proxies asked for and did not get", refused);
        pilot.register("xds_write_timeout", "Responses not taken in time", self.write_timeouts.clone());
        pilot.register("total_xds_internal_errors", "Streams ended by a fault", self.internal_errors.clone());
        pilot.register(
            "total_rejected_configs",
            "Objects that cannot be used",
            self.rejected_configs.clone(),
        );
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
            "csr_sign_err_count",
            "Certificate requests that were refused",
            self.sign_errors.clone(),
        );
        citadel.register("success_cert_issuance_count", "Certificates issued", self.issued.clone());
    }

    /// A response is sent.
    pub fn pushed(&self, answer: &Answer) {
        let label = of(&answer.type_url);
        self.pushes.get_or_create(&label).inc();
        let bytes: usize = answer.resources.iter().map(|resource| resource.body.len()).sum();
        self.config_size.get_or_create(&label).observe(bytes as f64);
    }

    /// A response was refused.
    pub fn rejected(&self, type_url: &TypeUrl) {
        self.rejects.get_or_create(&of(type_url)).inc();
        if let Some((.., counter)) = self.own_rejects.iter().find(|(_, known, _)| known == type_url) {
            counter.inc();
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
    }

    /// A proxy of that version has come.
    #[must_use]
    pub fn connected(&self, version: &str) -> Connected {
        let version = if version.is_empty() { "unknown" } else { version };
        let gauge = self.connected.get_or_create(&Version { version: version.into() }).clone();
        gauge.inc();
        Connected(gauge)
    }

    /// Resources of a type were translated.
    pub fn generated(&self, type_url: &TypeUrl, took: Duration) {
        self.push_time.get_or_create(&of(type_url)).observe(took.as_secs_f64());
    }

    /// A proxy had to wait before its resources were translated.
    pub fn queued(&self, waited: Duration) {
        self.queue_time.0.observe(waited.as_secs_f64());
    }

    /// A response was handed to the transport.
    pub fn sent(&self, took: Duration) {
        self.send_time.0.observe(took.as_secs_f64());
    }

    /// A proxy was sent all of a configuration.
    pub fn converged(&self, took: Duration) {
        self.convergence_time.0.observe(took.as_secs_f64());
    }

    /// Changes were gathered for that long.
    pub fn debounced(&self, waited: Duration) {
        self.debounce_time.0.observe(waited.as_secs_f64());
    }

    /// A configuration was indexed.
    pub fn built(&self, world: &Arc<World>, took: Duration) {
        self.build_time.0.observe(took.as_secs_f64());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.services.set(count(world.snapshot.services.len()));
        let kind = |object: &&Arc<config::Object>| object.key.kind == Kind::VirtualService;
        self.virtual_services.set(count(world.store.objects().filter(kind).count()));
        let trigger = if world.forced == world.serial { "debug" } else { "config" };
        self.triggers.get_or_create(&Type { r#type: trigger.into() }).inc();
    }

    /// Objects have changed.
    pub fn updates(&self, update: &Update) {
        let keys = update.apply.iter().map(|object| &object.key).chain(&update.delete);
        for key in keys {
            self.updates.get_or_create(&Type { r#type: update_type(key).into() }).inc();
        }
    }
}

/// The word for a change of an object.
fn update_type(key: &Key) -> &'static str {
    match key.kind {
        Kind::EndpointSlice | Kind::Pod => "eds",
        Kind::Service => "svc",
        _ => "config",
    }
}

/// The label of a type; types that nobody serves share one.
fn of(type_url: &TypeUrl) -> Type {
    let name = if let TypeUrl::Other(_) = type_url { "other" } else { type_url.short() };
    Type { r#type: name.to_ascii_lowercase() }
}
