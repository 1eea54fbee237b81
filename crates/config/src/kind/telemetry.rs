//! Rules of `Telemetry`.

use proto::istio::telemetry::v1alpha1::metric_selector::{IstioMetric, MetricMatch};
use proto::istio::telemetry::v1alpha1::metrics_overrides::tag_override::Operation;
use proto::istio::telemetry::v1alpha1::tracing::custom_tag;
use proto::istio::telemetry::v1alpha1::{AccessLogging, Metrics, ProviderRef, Telemetry, Tracing};

use crate::validate::Checker;

/// Istio's metrics without `istio_`, by which they may be named as well.
const METRICS: [&str; 10] = [
    "requests_total",
    "request_duration_milliseconds",
    "request_bytes",
    "response_bytes",
    "request_messages_total",
    "response_messages_total",
    "tcp_connections_opened_total",
    "tcp_connections_closed_total",
    "tcp_sent_bytes_total",
    "tcp_received_bytes_total",
];

pub(super) fn check(telemetry: &Telemetry, checker: &mut Checker) {
    checker.selection(telemetry.selector.as_ref(), telemetry.target_ref.as_ref(), &telemetry.target_refs);
    if telemetry.tracing.len() > 1 {
        checker.warn("tracing", "has several items: they are laid over each other, so one is enough");
    }
    for (index, item) in telemetry.tracing.iter().enumerate() {
        tracing(&format!("tracing[{index}]"), item, checker);
    }
    for (index, item) in telemetry.metrics.iter().enumerate() {
        metrics(&format!("metrics[{index}]"), item, checker);
    }
    for (index, item) in telemetry.access_logging.iter().enumerate() {
        access_logging(&format!("accessLogging[{index}]"), item, checker);
    }
}

fn providers(at: &str, providers: &[ProviderRef], checker: &mut Checker) {
    for (index, provider) in providers.iter().enumerate() {
        if provider.name.is_empty() {
            let message = "is missing: name one of extensionProviders in the mesh configuration";
            checker.error(format!("{at}.providers[{index}].name"), message);
        }
    }
}

fn access_logging(at: &str, logging: &AccessLogging, checker: &mut Checker) {
    providers(at, &logging.providers, checker);
    if let Some(filter) = &logging.filter {
        checker.cel(&format!("{at}.filter.expression"), &filter.expression);
        // As Istio has it: filters are kept by the providers named beside them.
        if logging.providers.is_empty() {
            checker.warn(format!("{at}.filter"), "has no effect without providers beside it: name them here");
        }
    }
}

fn tracing(at: &str, tracing: &Tracing, checker: &mut Checker) {
    providers(at, &tracing.providers, checker);
    if tracing.providers.len() > 1 {
        checker.warn(format!("{at}.providers"), "has several names: only the first has an effect");
    }
    if let Some(percent) = tracing.random_sampling_percentage.as_ref().map(|percent| percent.value)
        && !(0.0..=100.0).contains(&percent)
    {
        let message = format!("{percent} is not a percentage: expected 0 to 100");
        checker.error(format!("{at}.randomSamplingPercentage"), message);
    }
    for (name, tag) in &tracing.custom_tags {
        let at = format!("{at}.customTags.{name}");
        if name.is_empty() {
            checker.error(&at, "has no name: a tag needs one");
        }
        let (field, value) = match &tag.r#type {
            // Envoy takes no tag without a value.
            None => {
                checker.warn(&at, "is empty and is left out: give literal, environment, header or formatter");
                continue;
            }
            Some(custom_tag::Type::Literal(literal)) => ("literal.value", &literal.value),
            Some(custom_tag::Type::Environment(variable)) => ("environment.name", &variable.name),
            Some(custom_tag::Type::Header(header)) => ("header.name", &header.name),
            Some(custom_tag::Type::Formatter(formatter)) => ("formatter.value", &formatter.value),
        };
        if value.is_empty() {
            checker.error(format!("{at}.{field}"), "is missing: the tag would have no value");
        }
    }
}

fn metrics(at: &str, metrics: &Metrics, checker: &mut Checker) {
    providers(at, &metrics.providers, checker);
    if let Some(interval) = metrics.reporting_interval.filter(|interval| interval.as_nanos() < 1_000_000) {
        checker
            .error(format!("{at}.reportingInterval"), format!("{interval} is too short: the least is 1ms"));
    }
    for (index, change) in metrics.overrides.iter().enumerate() {
        let at = format!("{at}.overrides[{index}]");
        if let Some(MetricMatch::CustomMetric(name)) =
            change.r#match.as_ref().and_then(|selector| selector.metric_match.as_ref())
        {
            let at = format!("{at}.match.customMetric");
            if name.is_empty() {
                checker.error(at, "is empty: name a metric");
            } else if !METRICS.contains(&name.as_str()) && IstioMetric::from_str_name(name).is_none() {
                checker.warn(
                    at,
                    format!("{name:?} is none of Istio's metrics ({}) and has no effect unless an EnvoyFilter defines it", METRICS.join(", ")),
                );
            }
        }
        if change.tag_overrides.contains_key("") {
            checker.warn(format!("{at}.tagOverrides"), "has a tag without a name, which has no effect");
        }
        for (name, tag) in &change.tag_overrides {
            let at = format!("{at}.tagOverrides.{name}.value");
            match tag.operation() {
                Operation::Upsert if tag.value.is_empty() => {
                    checker.error(at, "is missing: UPSERT needs an expression");
                }
                Operation::Remove if !tag.value.is_empty() => {
                    checker.error(at, "has no effect with REMOVE: leave it out, or use UPSERT");
                }
                // Istio takes it as well; its proxies leave such a tag out.
                Operation::Upsert => checker.doubtful_cel(&at, &tag.value),
                Operation::Remove => {}
            }
        }
    }
}
