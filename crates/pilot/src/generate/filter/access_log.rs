//! Who is told of each request and connection (Telemetry and MeshConfig).

mod format;
mod merge;
mod provider;

use proto::Any;
use proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, extension_filter,
};
use proto::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use proto::istio::telemetry::v1alpha1::WorkloadMode;

use super::{Direction, Place};
use crate::scope::Scope;
use provider::Service;

pub(crate) use provider::Loggers;

/// Of requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<AccessLog> {
    of(scope, place.direction, Service::Requests, None)
}

/// Of connections.
pub(in crate::generate) fn tcp(scope: Scope<'_>, place: Place<'_>) -> Vec<AccessLog> {
    of(scope, place.direction, Service::Connections, None)
}

/// Of connections that no filter chain takes.
pub(in crate::generate) fn listener(scope: Scope<'_>, direction: Direction) -> Vec<AccessLog> {
    if scope.snapshot.mesh.disable_envoy_listener_log {
        return Vec::new();
    }
    let unmatched = ResponseFlagFilter { flags: vec!["NR".into()] };
    let filter = AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(unmatched)) };
    of(scope, direction, Service::Listener, Some(&filter))
}

fn of(
    scope: Scope<'_>,
    direction: Direction,
    service: Service,
    filter: Option<&AccessLogFilter>,
) -> Vec<AccessLog> {
    let snapshot = scope.snapshot;
    let loggers = snapshot.loggers.get_or_init(|| Loggers::new(snapshot));
    let with =
        |log: &AccessLog, filters: Vec<AccessLogFilter>| AccessLog { filter: all(filters), ..log.clone() };
    let own = || filter.cloned().into_iter().collect::<Vec<_>>();
    let workload = scope.workload();
    let applied = snapshot.telemetry.applied(workload);
    let defaults = snapshot.mesh.default_providers.as_ref();
    let defaults = defaults.map_or(&[][..], |defaults| &defaults.access_logging);
    let mode = match direction {
        Direction::Inbound => WorkloadMode::Server,
        Direction::Outbound | Direction::Gateway => WorkloadMode::Client,
    };
    let named = merge::providers(&applied.access_logging, defaults, mode);
    let mut logs: Vec<_> = named
        .iter()
        .filter_map(|(name, spec)| loggers.get(name).map(|(name, log)| (name, log, spec)))
        .collect();
    logs.sort_by_key(|(name, ..)| *name);
    if logs.is_empty() {
        // Nothing is said of it by Telemetry: what the mesh's settings say holds.
        return loggers.of_mesh(service).map(|log| with(log, own())).collect();
    }
    logs.into_iter()
        .filter(|(.., spec)| !spec.is_disabled)
        .map(|(_, log, spec)| {
            let mut filters = own();
            filters.extend(spec.expression.map(condition));
            with(log, filters)
        })
        .collect()
}

fn condition(expression: &str) -> AccessLogFilter {
    let filter = ExpressionFilter { expression: expression.into(), ..ExpressionFilter::default() };
    AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".into(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(Any::pack(&filter))),
        })),
    }
}

fn all(mut filters: Vec<AccessLogFilter>) -> Option<AccessLogFilter> {
    if filters.len() < 2 {
        return filters.pop();
    }
    Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::AndFilter(AndFilter { filters })) })
}

#[cfg(test)]
mod tests;
