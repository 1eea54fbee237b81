//! What the agent counts, under the names that Istio's dashboards read.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From Envoy to istiod.
    Request,
    /// From istiod to Envoy.
    Response,
}

/// What a scrape was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Source {
    #[allow(non_camel_case_types, reason = "written as it stands in the label")]
    envoy,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScrapeLabels {
    r#type: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource_name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    request_type: &'static str,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Counter,
    responses: Counter,
    istiod_failures: Counter,
    istiod_terminations: Counter,
    envoy_terminations: Counter,
    scrapes: Counter,
    scrape_failures: Family<ScrapeLabels, Counter>,
    /// Certificate requests that were sent.
    pub csr_requests: Counter,
    /// Certificate requests that failed.
    pub csr_failures: Counter,
    startup: Gauge<f64, AtomicU64>,
    cert_expiry: Family<ResourceLabels, Gauge<f64, AtomicU64>>,
    expires: Mutex<Option<SystemTime>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("istio_agent");
        let mut counter = |name: &'static str, help: &'static str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let requests = counter("xds_proxy_requests", "Requests of Envoy passed to istiod");
        let responses = counter("xds_proxy_responses", "Responses of istiod passed to Envoy");
        let istiod_failures =
            counter("istiod_connection_failures", "Connections to istiod that did not come about");
        let istiod_terminations = counter("istiod_connection_terminations", "xDS streams that istiod ended");
        let envoy_terminations = counter("envoy_connection_terminations", "xDS streams that Envoy ended");
        let scrapes = counter("scrapes", "Scrapes of the merged metrics");
        let scrape_failures = Family::<ScrapeLabels, Counter>::default();
        registry.register("scrape_failures", "Scrapes whose source failed", scrape_failures.clone());
        let outgoing = Family::<RequestLabels, Counter>::default();
        let failed = Family::<RequestLabels, Counter>::default();
        registry.register("num_outgoing_requests", "Requests to the CA", outgoing.clone());
        registry.register("num_failed_outgoing_requests", "Requests to the CA that failed", failed.clone());
        let csr = RequestLabels { request_type: "csr" };
        let startup = Gauge::<f64, AtomicU64>::default();
        registry.register("startup_duration_seconds", "Time from start to ready", startup.clone());
        let cert_expiry = Family::<ResourceLabels, Gauge<f64, AtomicU64>>::default();
        registry.register("cert_expiry_seconds", "Time until the certificate ends", cert_expiry.clone());
        Self {
            requests,
            responses,
            istiod_failures,
            istiod_terminations,
            envoy_terminations,
            scrapes,
            scrape_failures,
            csr_requests: outgoing.get_or_create_owned(&csr),
            csr_failures: failed.get_or_create_owned(&csr),
            startup,
            cert_expiry,
            expires: Mutex::new(None),
            registry,
        }
    }
}

impl Metrics {
    /// A message passed.
    pub fn message(&self, direction: Direction) {
        match direction {
            Direction::Request => self.requests.inc(),
            Direction::Response => self.responses.inc(),
        };
    }

    /// istiod could not be reached or refused.
    pub fn istiod_failed(&self) {
        self.istiod_failures.inc();
    }

    /// istiod ended a stream.
    pub fn istiod_ended(&self) {
        self.istiod_terminations.inc();
    }

    /// Envoy ended a stream.
    pub fn envoy_ended(&self) {
        self.envoy_terminations.inc();
    }

    /// The merged metrics are asked for.
    pub fn scraped(&self) {
        self.scrapes.inc();
    }

    /// Envoy's metrics were not to be had.
    pub fn scrape_failed(&self) {
        self.scrape_failures.get_or_create(&ScrapeLabels { r#type: Source::envoy }).inc();
    }

    /// Envoy became ready that long after the start.
    pub fn ready_after(&self, duration: Duration) {
        self.startup.set(duration.as_secs_f64());
    }

    /// A new certificate is in force.
    pub fn certificate_expires(&self, at: SystemTime) {
        *self.expires.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(at);
    }

    /// All metrics as text, in the form that is joined with Envoy's.
    #[must_use]
    pub fn render(&self, now: SystemTime) -> String {
        let expires = *self.expires.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(expires) = expires {
            let left = match expires.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(over) => -over.duration().as_secs_f64(),
            };
            self.cert_expiry.get_or_create(&ResourceLabels { resource_name: "default" }).set(left);
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        encode(&mut text, &self.registry).ok();
        plain(&text)
    }
}

/// Counters whose name ends in `_total`, which the encoder insists on adding itself.
const TOTALS: [&str; 2] = ["istio_agent_scrapes", "istio_agent_scrape_failures"];

/// OpenMetrics as the older text format, in which a counter has one name
/// throughout, and nothing marks the end.
fn plain(text: &str) -> String {
    let mut counters = Vec::new();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.push(name);
        }
        let (head, name) = match line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
            Some((kind, rest)) => (format!("# {kind} "), rest.split(' ').next().unwrap_or_default()),
            None => (String::new(), &line[..line.find(['{', ' ']).unwrap_or(line.len())]),
        };
        let rest = &line[head.len() + name.len()..];
        let bare = name.strip_suffix("_total").filter(|bare| counters.contains(bare)).unwrap_or(name);
        out.push_str(&head);
        out.push_str(bare);
        if TOTALS.contains(&bare) {
            out.push_str("_total");
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_istio() {
        let metrics = Metrics::default();
        metrics.message(Direction::Request);
        metrics.scrape_failed();
        metrics.csr_requests.inc();
        metrics.certificate_expires(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        let text = metrics.render(SystemTime::UNIX_EPOCH + Duration::from_secs(40));
        for line in [
            "istio_agent_xds_proxy_requests 1",
            "istio_agent_xds_proxy_responses 0",
            "istio_agent_scrape_failures_total{type=\"envoy\"} 1",
            "istio_agent_num_outgoing_requests{request_type=\"csr\"} 1",
            "istio_agent_cert_expiry_seconds{resource_name=\"default\"} 60.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for line in
            ["# TYPE istio_agent_scrapes_total counter", "# TYPE istio_agent_xds_proxy_requests counter"]
        {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }
}
