//! What the DNS proxy counts.

use std::net::SocketAddr;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the time for an answer of another server, in seconds; Istio's.
const BOUNDS: [f64; 6] = [0.001, 0.005, 0.01, 0.1, 1.0, 5.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    #[allow(non_camel_case_types, reason = "written as it stands in the label")]
    answer,
    #[allow(non_camel_case_types, reason = "written as it stands in the label")]
    failure,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: String,
    outcome: Outcome,
}

/// Counters of the DNS proxy.
#[derive(Debug)]
pub struct Dns {
    /// Requests of applications.
    pub requests: Counter,
    /// Requests that other servers were asked for.
    pub upstream_requests: Counter,
    /// Of those, the ones that no server answered.
    pub upstream_failures: Counter,
    /// How long the answers took, in seconds.
    pub upstream_duration: Histogram,
    /// Requests answered with an old answer, since there was no new one.
    pub stale: Counter,
    servers: Family<ServerLabels, Counter>,
}

impl Dns {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &'static str, help: &'static str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let requests = counter("dns_requests", "DNS requests");
        let upstream_requests = counter("dns_upstream_requests", "DNS requests passed on to other servers");
        let upstream_failures = counter("dns_upstream_failures", "DNS requests that no server answered");
        let stale = counter("dns_stale_answers", "DNS requests answered with an old answer");
        let upstream_duration = Histogram::new(BOUNDS);
        registry.register(
            "dns_upstream_request_duration_seconds",
            "Time until another server answered",
            upstream_duration.clone(),
        );
        let servers = Family::default();
        registry.register("dns_upstream_server_attempts", "Attempts by server and outcome", servers.clone());
        Self { requests, upstream_requests, upstream_failures, upstream_duration, stale, servers }
    }

    /// A server has answered, or has not.
    pub fn server(&self, server: SocketAddr, is_answer: bool) {
        let outcome = if is_answer { Outcome::answer } else { Outcome::failure };
        self.servers.get_or_create(&ServerLabels { server: server.to_string(), outcome }).inc();
    }
}
