//! What the agent counts, under the names that Istio's dashboards read.

pub mod ads;
pub mod dns;
pub mod files;
pub mod identity;
mod process;
pub mod wasm;

use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scraped {
    /// Envoy's metrics.
    Envoy,
    /// The application's.
    Application,
    /// The agent's own.
    Agent,
}

impl Scraped {
    /// Its name in labels and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Application => "application",
            Self::Agent => "agent",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScrapeLabels {
    r#type: &'static str,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Counter,
    responses: Counter,
    istiod_failures: Counter,
    scrapes: Counter,
    scrape_failures: Family<ScrapeLabels, Counter>,
    /// Certificates and tokens.
    pub identity: identity::Identity,
    /// Certificates in files.
    pub files: files::Files,
    /// How xDS streams end.
    pub ads: ads::Ads,
    /// Wasm modules.
    pub wasm: wasm::Wasm,
    /// The DNS proxy.
    pub dns: std::sync::Arc<dns::Dns>,
    startup: Gauge<f64, AtomicU64>,
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
        let scrapes = counter("scrapes", "Scrapes of the merged metrics");
        let scrape_failures = Family::<ScrapeLabels, Counter>::default();
        registry.register("scrape_failures", "Scrapes whose source failed", scrape_failures.clone());
        let identity = identity::Identity::register(&mut registry);
        let files = files::Files::register(&mut registry, &identity);
        let startup = Gauge::<f64, AtomicU64>::default();
        registry.register("startup_duration_seconds", "Time from start to ready", startup.clone());
        let ads = ads::Ads::register(&mut registry);
        let wasm = wasm::Wasm::register(&mut registry);
        let dns = std::sync::Arc::new(dns::Dns::register(&mut registry));
        Self {
            requests,
            responses,
            istiod_failures,
            scrapes,
            scrape_failures,
            identity,
            files,
            ads,
            wasm,
            dns,
            startup,
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

    /// The merged metrics are asked for.
    pub fn scraped(&self) {
        self.scrapes.inc();
    }

    /// Metrics were not to be had, or not whole.
    pub fn scrape_failed(&self, kind: Scraped) {
        self.scrape_failures.get_or_create(&ScrapeLabels { r#type: kind.name() }).inc();
    }

    /// Envoy became ready that long after the start.
    pub fn ready_after(&self, duration: Duration) {
        self.startup.set(duration.as_secs_f64());
    }

    /// All metrics as text, in the form that is joined with Envoy's.
    #[must_use]
    pub fn render(&self, now: SystemTime) -> String {
        self.identity.update(now);
        self.files.update(now);
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            self.scrape_failed(Scraped::Agent);
        }
        let mut text = plain(&text);
        process::render(&mut text);
        text
    }
}

/// Counters whose name ends in `_total`, which the encoder insists on adding itself.
const TOTALS: [&str; 9] = [
    "istio_agent_scrapes",
    "istio_agent_scrape_failures",
    "istio_agent_num_file_watcher_failures",
    "istio_agent_num_file_secret_failures",
    "istio_agent_dns_requests",
    "istio_agent_dns_upstream_requests",
    "istio_agent_dns_upstream_failures",
    "istio_agent_dns_upstream_server_attempts",
    "istio_agent_dns_stale_answers",
];

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
        metrics.scrape_failed(Scraped::Envoy);
        metrics.identity.csr_requests.inc();
        metrics.identity.csr_took(Duration::from_millis(1500));
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        metrics.identity.certificate_ends(end, Some(end + Duration::from_secs(100)));
        metrics.identity.token_ends(Some(end - Duration::from_secs(90)));
        metrics.files.expires("file-cert:a~b", end + Duration::from_secs(1));
        metrics.files.secret_failed();
        let text = metrics.render(SystemTime::UNIX_EPOCH + Duration::from_secs(40));
        for line in [
            "istio_agent_xds_proxy_requests 1",
            "istio_agent_xds_proxy_responses 0",
            "istio_agent_scrape_failures_total{type=\"envoy\"} 1",
            "istio_agent_num_outgoing_requests{request_type=\"csr\"} 1",
            "istio_agent_num_outgoing_retries{request_type=\"csr\"} 0",
            "istio_agent_outgoing_latency{request_type=\"csr\"} 1500.0",
            "istio_agent_cert_expiry_seconds{resource_name=\"default\"} 60.0",
            "istio_agent_cert_expiry_seconds{resource_name=\"ROOTCA\"} 160.0",
            "istio_agent_token_expiry_seconds -30.0",
            "istio_agent_cert_expiry_seconds{resource_name=\"file-cert:a~b\"} 61.0",
            "istio_agent_num_file_watcher_failures_total 0",
            "istio_agent_num_file_secret_failures_total 1",
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
