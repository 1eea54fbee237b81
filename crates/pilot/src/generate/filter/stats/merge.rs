//! What is counted for each provider, of all that objects of several levels say.

use std::collections::{BTreeMap, BTreeSet};

use proto::istio::telemetry::v1alpha1::metric_selector::{IstioMetric, MetricMatch};
use proto::istio::telemetry::v1alpha1::metrics_overrides::tag_override::Operation;
use proto::istio::telemetry::v1alpha1::{MetricSelector, Metrics, MetricsOverrides, WorkloadMode};
use proto::wkt::Duration;

/// Changes of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metric {
    /// Whether it is not counted.
    pub(super) is_disabled: bool,
    /// Expressions of labels by name; `None` for those that are taken away.
    pub(super) tags: BTreeMap<String, Option<String>>,
}

/// Changes of the metrics of one side of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Whether nothing is counted.
    pub(super) is_disabled: bool,
    /// By name, the standard ones in the order of Istio's names for them.
    pub(super) metrics: Vec<(String, Metric)>,
}

/// What holds for one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// For calls of the workload, and all that passes a gateway.
    pub(super) client: Side,
    /// For calls to the workload.
    pub(super) server: Side,
    /// Between two looks at open connections, as written last.
    pub(super) interval: Option<Duration>,
}

/// What is known of one side while the items are read.
#[derive(Debug, Default)]
struct Draft {
    is_disabled: bool,
    /// By Istio's name for a standard metric, or the name of another.
    metrics: BTreeMap<String, Metric>,
}

/// Standard metrics: Istio's name of each in Telemetry, and Prometheus's without `istio_`.
pub(super) const STANDARD: [(IstioMetric, &str); 10] = [
    (IstioMetric::GrpcRequestMessages, "request_messages_total"),
    (IstioMetric::GrpcResponseMessages, "response_messages_total"),
    (IstioMetric::RequestCount, "requests_total"),
    (IstioMetric::RequestDuration, "request_duration_milliseconds"),
    (IstioMetric::RequestSize, "request_bytes"),
    (IstioMetric::ResponseSize, "response_bytes"),
    (IstioMetric::TcpClosedConnections, "tcp_connections_closed_total"),
    (IstioMetric::TcpOpenedConnections, "tcp_connections_opened_total"),
    (IstioMetric::TcpReceivedBytes, "tcp_received_bytes_total"),
    (IstioMetric::TcpSentBytes, "tcp_sent_bytes_total"),
];

/// Providers by name. Items come from the root namespace down to the workload; the last one
/// that names providers says which ones count, items without mean those named before them.
pub(super) fn providers(items: &[&Metrics], defaults: &[String]) -> BTreeMap<String, Merged> {
    let defaults: Vec<&str> = defaults.iter().map(String::as_str).collect();
    if items.is_empty() {
        return defaults.into_iter().map(|name| (name.to_owned(), Merged::default())).collect();
    }
    let named = items.iter().rev().map(|item| names(item)).find(|names| !names.is_empty());
    let in_force: BTreeSet<&str> = named.unwrap_or_else(|| defaults.clone()).into_iter().collect();
    let mut drafts: BTreeMap<&str, ([Draft; 2], Option<Duration>)> = BTreeMap::new();
    let mut inherited = defaults;
    for item in items {
        let own = names(item);
        if !own.is_empty() {
            inherited = own;
        }
        for name in inherited.iter().filter(|name| in_force.contains(*name)) {
            let (sides, interval) = drafts.entry(name).or_default();
            *interval = item.reporting_interval.or(*interval);
            for change in &item.overrides {
                let mode =
                    change.r#match.as_ref().map_or(WorkloadMode::ClientAndServer, MetricSelector::mode);
                let [client, server] = sides;
                if mode != WorkloadMode::Server {
                    client.lay(change);
                }
                if mode != WorkloadMode::Client {
                    server.lay(change);
                }
            }
        }
    }
    let merged = drafts.into_iter().map(|(name, ([client, server], interval))| {
        (name.to_owned(), Merged { client: client.done(), server: server.done(), interval })
    });
    merged.collect()
}

fn names(item: &Metrics) -> Vec<&str> {
    item.providers.iter().map(|provider| provider.name.as_str()).collect()
}

/// The metrics that a change is for, and whether it is for all.
fn matched(change: &MetricsOverrides) -> (Vec<&str>, bool) {
    match change.r#match.as_ref().and_then(|selector| selector.metric_match.as_ref()) {
        Some(MetricMatch::CustomMetric(name)) => (vec![name], false),
        Some(MetricMatch::Metric(number)) => match IstioMetric::try_from(*number) {
            Ok(IstioMetric::AllMetrics) => (all(), true),
            Ok(metric) => (vec![metric.as_str_name()], false),
            // There is no such metric.
            Err(_) => (Vec::new(), false),
        },
        None => (all(), true),
    }
}

fn all() -> Vec<&'static str> {
    STANDARD.iter().map(|(metric, _)| metric.as_str_name()).collect()
}

impl Draft {
    /// Lays a change over what is there.
    fn lay(&mut self, change: &MetricsOverrides) {
        let (metrics, is_all) = matched(change);
        let disabled = change.disabled.as_ref().map(|disabled| disabled.value);
        if is_all && disabled == Some(true) {
            self.is_disabled = true;
            return;
        }
        // A change below means that its metrics are wanted.
        self.is_disabled = false;
        for name in metrics {
            let metric = self.metrics.entry(name.to_owned()).or_default();
            metric.is_disabled = disabled.unwrap_or(metric.is_disabled);
            for (tag, wanted) in &change.tag_overrides {
                let value = match wanted.operation() {
                    Operation::Upsert => Some(wanted.value.clone()),
                    Operation::Remove => None,
                };
                metric.tags.insert(tag.clone(), value);
            }
        }
    }

    fn done(self) -> Side {
        let prometheus = |name: String| {
            let standard = STANDARD.iter().find(|(metric, _)| metric.as_str_name() == name);
            standard.map_or(name, |(_, prometheus)| (*prometheus).to_owned())
        };
        let metrics = if self.is_disabled { BTreeMap::new() } else { self.metrics };
        Side {
            is_disabled: self.is_disabled,
            metrics: metrics.into_iter().map(|(name, metric)| (prometheus(name), metric)).collect(),
        }
    }
}
