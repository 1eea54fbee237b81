//! One filter configuration, ready for use.

use std::borrow::Cow;
use std::sync::Arc;

use crate::attributes::Attributes;
use crate::cache::Cache;
use crate::exchange::Exchange;
use crate::expression::{self, Expression, Sources};
use crate::fault::Switch;
use crate::labels::{self, Labels, UNKNOWN};
use crate::node::{self, Node};
use crate::peer::Workload;
use crate::registry::{self, Kind, Registry, Series};
use crate::settings::{DefinitionKind, Direction, Settings};
use crate::{log, tcp};

/// A metric that Istio has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Standard {
    Requests,
    RequestDuration,
    RequestBytes,
    ResponseBytes,
    RequestMessages,
    ResponseMessages,
    TcpOpened,
    TcpClosed,
    TcpSent,
    TcpReceived,
}

/// Their names without `istio_`, and kinds, by the number of [`Standard`].
const STANDARD: [(&str, Kind); 10] = [
    ("requests_total", Kind::Counter),
    ("request_duration_milliseconds", Kind::Histogram),
    ("request_bytes", Kind::Histogram),
    ("response_bytes", Kind::Histogram),
    ("request_messages_total", Kind::Counter),
    ("response_messages_total", Kind::Counter),
    ("tcp_connections_opened_total", Kind::Counter),
    ("tcp_connections_closed_total", Kind::Counter),
    ("tcp_sent_bytes_total", Kind::Counter),
    ("tcp_received_bytes_total", Kind::Counter),
];

/// One metric with what was changed about it.
#[derive(Debug)]
struct Metric {
    /// Full name.
    name: String,
    kind: Kind,
    is_dropped: bool,
    removed: Vec<String>,
    /// Tags and the number of the expression that gives each its value; in order.
    tags: Vec<(String, usize)>,
}

/// A metric beside the standard ones, with one set of labels.
#[derive(Debug)]
pub struct Custom {
    /// Where it is counted.
    pub series: Arc<Series>,
    /// The number of the expression whose value is counted.
    pub amount: usize,
}

/// One filter configuration.
#[derive(Debug)]
pub struct Config {
    /// What was asked.
    pub settings: Settings,
    /// Whether it still does anything.
    pub switch: Switch,
    /// The exchange of metadata; none where it is switched off.
    pub exchange: Option<Exchange>,
    /// Who this proxy is.
    pub own: Workload,
    /// Handles of known label sets.
    pub http: Cache<crate::http::Set>,
    /// The same, of messages.
    pub messages: Cache<crate::http::MessageSet>,
    /// The same, of connections.
    pub tcp: Cache<tcp::Set>,
    metrics: Vec<Metric>,
    custom: Vec<(Metric, usize)>,
    expressions: Vec<Expression>,
    node: &'static Node,
    /// Where it is counted.
    pub registry: &'static Registry,
}

impl Config {
    /// Reads a configuration for this process's node.
    ///
    /// # Errors
    /// When it cannot be read at all. What is wrong with one metric is logged only.
    pub fn new(json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self::with(Settings::parse(json)?, node::own(), registry::global()))
    }

    /// With settings for a node, counting in a registry.
    #[must_use]
    pub fn with(settings: Settings, node: &'static Node, registry: &'static Registry) -> Self {
        registry.set_idle(settings.idle());
        let mut own = Workload::of(node);
        if node == &Node::default() {
            own.all_unknown();
        }
        let version = if node.istio_version.is_empty() { UNKNOWN } else { &node.istio_version };
        let build: Labels<'_> = vec![("component", Cow::Borrowed("proxy")), ("tag", Cow::Borrowed(version))];
        let build = labels::text(&build);
        registry.series("istio_build", Kind::Gauge, 1, &build, &build).add(1, u32::MAX);
        let mut config = Self {
            switch: Switch::default(),
            exchange: None,
            own,
            http: Cache::default(),
            messages: Cache::default(),
            tcp: Cache::default(),
            metrics: STANDARD.map(|(name, kind)| Metric::new(name, kind)).into(),
            custom: Vec::new(),
            expressions: Vec::new(),
            node,
            registry,
            settings,
        };
        config.define();
        config.change();
        // Only a peer itself tells its type and its name.
        let asks = config.expressions.iter().any(|expression| expression.text().contains("upstream_peer"));
        let settings = &config.settings;
        config.exchange = settings.metadata_exchange.then(|| Exchange::new(settings.direction, node, asks));
        config
    }

    /// Metrics beside the standard ones.
    fn define(&mut self) {
        for definition in std::mem::take(&mut self.settings.definitions) {
            let name = definition.name.as_str();
            if STANDARD.iter().any(|(standard, _)| *standard == name) || name.is_empty() {
                log::warn(&format!("metric {name:?} is Istio's own and cannot be defined"));
                continue;
            }
            let kind = match definition.kind {
                DefinitionKind::Counter => Kind::Counter,
                DefinitionKind::Gauge => Kind::Gauge,
                DefinitionKind::Histogram => Kind::Histogram,
            };
            let amount = self.expression(&definition.value);
            self.custom.push((Metric::new(name, kind), amount));
        }
    }

    /// Changes of metrics.
    fn change(&mut self) {
        for change in std::mem::take(&mut self.settings.metrics) {
            let tags: Vec<_> =
                change.dimensions.iter().map(|(tag, text)| (tag.clone(), self.expression(text))).collect();
            let all = self.metrics.iter_mut().map(|metric| (metric, true));
            let all = all.chain(self.custom.iter_mut().map(|(metric, _)| (metric, false)));
            for (metric, is_standard) in all.filter(|(metric, _)| metric.is(&change.name)) {
                if change.drop {
                    metric.is_dropped |= is_standard && !change.name.is_empty();
                    continue;
                }
                if is_standard {
                    metric.removed.extend(change.tags_to_remove.iter().cloned());
                }
                for (tag, expression) in &tags {
                    metric.removed.retain(|removed| removed != tag);
                    metric.tags.retain(|(known, _)| known != tag);
                    metric.tags.push((tag.clone(), *expression));
                }
            }
        }
    }

    /// The number of an expression; equal texts are one.
    fn expression(&mut self, text: &str) -> usize {
        if let Some(known) = self.expressions.iter().position(|known| known.text() == text) {
            return known;
        }
        self.expressions.push(Expression::new(text));
        self.expressions.len() - 1
    }

    /// The values of all expressions; none where there is no expression.
    #[must_use]
    pub fn evaluate<'a>(
        &self,
        from: &impl Attributes,
        peer: impl FnOnce() -> Option<&'a Workload>,
    ) -> Vec<String> {
        if self.expressions.is_empty() {
            return Vec::new();
        }
        let sources = Sources {
            attributes: from,
            peer: peer(),
            is_peer_downstream: self.settings.direction == Direction::Inbound,
            node: self.node,
        };
        expression::evaluate(&self.expressions, &sources)
    }

    /// The series of a standard metric; none where it is left out.
    #[must_use]
    pub fn standard(&self, metric: Standard, labels: &Labels<'_>, values: &[String]) -> Option<Arc<Series>> {
        let metric = self.metrics.get(metric as usize).filter(|metric| !metric.is_dropped)?;
        Some(self.series(metric, labels, values))
    }

    /// Whether a standard metric is left out.
    #[must_use]
    pub fn is_dropped(&self, metric: Standard) -> bool {
        self.metrics.get(metric as usize).is_none_or(|metric| metric.is_dropped)
    }

    /// Whether anything is counted of a request at its end.
    #[must_use]
    pub fn counts_requests(&self) -> bool {
        let of_requests =
            [Standard::Requests, Standard::RequestDuration, Standard::RequestBytes, Standard::ResponseBytes];
        !self.custom.is_empty() || of_requests.into_iter().any(|metric| !self.is_dropped(metric))
    }

    /// The series of all metrics beside the standard ones.
    #[must_use]
    pub fn custom(&self, values: &[String]) -> Vec<Custom> {
        let none = Vec::new();
        let each = self.custom.iter();
        each.map(|(metric, amount)| Custom { series: self.series(metric, &none, values), amount: *amount })
            .collect()
    }

    fn series(&self, metric: &Metric, labels: &Labels<'_>, values: &[String]) -> Arc<Series> {
        let labels = metric.labels(labels, values);
        let (text, overflow) = (labels::text(&labels), labels::overflow(&labels));
        self.registry.series(&metric.name, metric.kind, self.settings.max_series(), &text, &overflow)
    }
}

impl Metric {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: format!("istio_{}", name.trim_start_matches("istio_")),
            kind,
            is_dropped: false,
            removed: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// Whether a change names it.
    fn is(&self, name: &str) -> bool {
        name.is_empty() || self.name.strip_prefix("istio_") == Some(name)
    }

    /// Its own labels, made of the standard ones: a standard tag keeps its place.
    fn labels<'a>(&'a self, labels: &'a Labels<'_>, values: &'a [String]) -> Labels<'a> {
        let value = |number: usize| Cow::Borrowed(values.get(number).map_or(UNKNOWN, String::as_str));
        let mut own: Labels<'a> = Vec::with_capacity(labels.len() + self.tags.len());
        for (name, standard) in
            labels.iter().filter(|(name, _)| !self.removed.iter().any(|gone| gone == name))
        {
            let changed = self.tags.iter().find(|(tag, _)| tag == name);
            own.push((name, changed.map_or(Cow::Borrowed(standard), |(_, number)| value(*number))));
        }
        for (tag, number) in &self.tags {
            let is_standard = labels.iter().any(|(name, _)| name == tag);
            // A standard tag that this metric does not have is not added to it.
            if !is_standard && (labels.is_empty() || !labels::TAGS.contains(&tag.as_str())) {
                own.push((tag, value(*number)));
            }
        }
        own
    }
}

#[cfg(test)]
mod tests;
