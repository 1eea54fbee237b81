//! Istio's metrics of requests and connections, counted by our own module inside
//! Envoy (`telemetry/`), for proxies that say that they have it.
//!
//! The same filter exchanges metadata with peers; where nothing is counted, it
//! does that alone, under the name of Istio's own filter for it.

mod merge;
mod module;

use mesh::extension_provider;
use names::Hostname;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use proto::Any;
use proto::envoy::config::listener::v3::Filter;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::Provider;

use super::{Direction, Place};
use crate::generate::http::filter;
use crate::generate::message::{network_filter, structure, text, time_over_zero, truth};
use crate::scope::Scope;
use crate::snapshot::Service;
use merge::{Metric, Side};

/// Name of the filter that counts, as Istio's proxies have it.
const STATS: &str = "istio.stats";
/// Name of the filter that only exchanges metadata, as Istio's proxies have it.
const EXCHANGE: &str = "istio.metadata_exchange";

/// What the filters depend on: the objects that say something of metrics, the direction,
/// and the host and namespace of the service that is called, where the chain is for one.
pub(crate) type Key = (Vec<usize>, &'static str, Option<(Hostname, String)>);

/// The filters of a chain, each written once for all proxies of a [`Key`].
#[derive(Debug)]
pub(crate) struct Filters {
    http: Option<HttpFilter>,
    network: Option<Filter>,
}

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Option<HttpFilter> {
    of(scope, place, |filters| filters.http.clone())
}

/// Filters for connections.
pub(in crate::generate) fn network(scope: Scope<'_>, place: Place<'_>) -> Option<Filter> {
    of(scope, place, |filters| filters.network.clone())
}

fn of<T>(scope: Scope<'_>, place: Place<'_>, take: impl Fn(&Filters) -> Option<T>) -> Option<T> {
    if !scope.proxy.has_module() {
        return None;
    }
    let direction = place.direction;
    let word = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Gateway => "gateway",
    };
    // On the way out, the cluster's name tells it.
    let service = place.service.filter(|_| direction == Direction::Inbound);
    let workload = scope.workload();
    let applied = scope.snapshot.telemetry.applied(workload);
    let key =
        (applied.metrics_of, word, service.map(|service| (service.host.clone(), service.namespace.clone())));
    let filters = scope.snapshot.stats_filters.get(key, || {
        let exchanges = scope.snapshot.settings.features.metadata_exchange;
        let common = common(word, exchanges, service);
        match counted(scope, &applied.metrics, direction) {
            Some((side, interval)) => {
                let config = config(common, direction, &side, interval);
                Filters {
                    http: Some(filter(STATS, &module::http(config.clone()))),
                    network: Some(network_filter(STATS, &module::network(config))),
                }
            }
            // Peers of HTTP learn of each other by headers; connections have none.
            None => Filters {
                http: exchanges.then(|| filter(EXCHANGE, &module::http(nothing(common)))),
                network: None,
            },
        }
    });
    take(&filters)
}

/// What is counted in a direction; `None` for nothing.
fn counted(
    scope: Scope<'_>,
    metrics: &[&proto::istio::telemetry::v1alpha1::Metrics],
    direction: Direction,
) -> Option<(Side, Option<proto::wkt::Duration>)> {
    let mesh = &scope.snapshot.mesh;
    let defaults = mesh.default_providers.as_ref().map_or(&[][..], |defaults| &defaults.metrics);
    let is_prometheus = |name: &str| {
        let found = extension_provider::find(&mesh.extension_providers, name);
        matches!(found.and_then(|found| found.provider.as_ref()), Some(Provider::Prometheus(_)))
    };
    // All of them are one and the same: what Envoy shows. One filter counts for the first.
    let merged = merge::providers(metrics, defaults);
    let mut sides = merged.into_iter().filter(|(name, _)| is_prometheus(name)).map(|(_, merged)| {
        let side = if direction == Direction::Inbound { merged.server } else { merged.client };
        (side, merged.interval)
    });
    sides.find(|(side, _)| !side.is_disabled)
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn common(direction: &str, exchanges: bool, service: Option<&Service>) -> Struct {
    let mut config = structure([("direction", text(direction)), ("metadata_exchange", truth(exchanges))]);
    if let Some(service) = service {
        let names = [
            ("host", text(service.host.as_str())),
            ("name", text(&service.name)),
            ("namespace", text(&service.namespace)),
        ];
        let names = Value { kind: Some(Kind::StructValue(structure(names))) };
        config.fields.insert("service".into(), names);
    }
    config
}

/// The filter's settings: fields of Istio's `stats.PluginConfig`, in JSON.
fn config(
    mut config: Struct,
    direction: Direction,
    side: &Side,
    interval: Option<proto::wkt::Duration>,
) -> Any {
    let mut put = |name: &str, value: Value| drop(config.fields.insert(name.into(), value));
    // What a client writes there may come from anywhere.
    if matches!(direction, Direction::Inbound | Direction::Gateway) {
        put("disable_host_header_fallback", truth(true));
    }
    if time_over_zero(interval).is_some()
        && let Some(interval) = interval
    {
        put("tcp_reporting_duration", text(interval.to_string()));
    }
    if !side.metrics.is_empty() {
        put("metrics", list(side.metrics.iter().map(|(name, metric)| changed(name, metric)).collect()));
    }
    packed(&config)
}

/// Settings of a filter that counts nothing.
fn nothing(mut config: Struct) -> Any {
    let all = merge::STANDARD.iter().map(|(_, name)| {
        let fields = structure([("name", text(*name)), ("drop", truth(true))]);
        Value { kind: Some(Kind::StructValue(fields)) }
    });
    config.fields.insert("metrics".into(), list(all.collect()));
    packed(&config)
}

fn packed(config: &Struct) -> Any {
    let type_url = "type.googleapis.com/google.protobuf.Struct".into();
    Any { type_url, value: config.encode_to_vec().into() }
}

fn changed(name: &str, metric: &Metric) -> Value {
    let mut fields = structure([("name", text(name))]);
    let mut put = |name: &str, value: Value| drop(fields.fields.insert(name.into(), value));
    let tags = metric.tags.iter();
    let dimensions: Vec<_> = tags.clone().filter_map(|(tag, value)| Some((tag, value.as_ref()?))).collect();
    if !dimensions.is_empty() {
        let dimensions = dimensions.into_iter().map(|(tag, value)| (tag.clone(), text(value))).collect();
        put("dimensions", Value { kind: Some(Kind::StructValue(Struct { fields: dimensions })) });
    }
    let removed: Vec<Value> = tags.filter(|(_, value)| value.is_none()).map(|(tag, _)| text(tag)).collect();
    if !removed.is_empty() {
        put("tags_to_remove", list(removed));
    }
    if metric.is_disabled {
        put("drop", truth(true));
    }
    Value { kind: Some(Kind::StructValue(fields)) }
}

#[cfg(test)]
mod tests;
