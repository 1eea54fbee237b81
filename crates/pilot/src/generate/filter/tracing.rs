//! Spans: what they say of the proxy and who collects them (Telemetry,
//! MeshConfig and the proxy's own settings).

mod provider;
mod tags;

use std::collections::BTreeMap;

use mesh::{ProxyConfig, extension_provider};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use proto::envoy::r#type::v3::Percent;
use proto::istio::mesh::v1alpha1::mesh_config::ExtensionProvider;
use proto::istio::telemetry::v1alpha1::WorkloadMode;
use proto::istio::telemetry::v1alpha1::tracing::CustomTag;

use super::{Direction, Place};
use crate::scope::Scope;

/// How requests are traced.
#[derive(Debug)]
pub(in crate::generate) struct Traced {
    /// Spans; `None` when there are none.
    pub(in crate::generate) tracing: Option<Tracing>,
    /// Whether the id of a request tells that it is traced.
    pub(in crate::generate) marks_request_id: bool,
}

/// What Telemetry says of one direction.
#[derive(Clone, Debug)]
struct Spec<'a> {
    provider: Option<&'a ExtensionProvider>,
    is_disabled: bool,
    sampling: Option<f64>,
    tags: Option<&'a BTreeMap<String, CustomTag>>,
    marks_request_id: bool,
    has_own_tags: bool,
    hides_context: bool,
}

/// Tracing of requests.
pub(in crate::generate) fn of(scope: Scope<'_>, place: Place<'_>) -> Traced {
    let off = Traced { tracing: None, marks_request_id: true };
    let mode = match place.direction {
        Direction::Inbound => WorkloadMode::Server,
        Direction::Outbound | Direction::Gateway => WorkloadMode::Client,
    };
    let config = scope.proxy.config.as_deref().or(scope.snapshot.mesh.default_config.as_ref());
    let Some(spec) = spec(scope, mode) else {
        // Nobody collects spans, but those of the application are passed on.
        let is_on = scope.snapshot.mesh.enable_tracing;
        return Traced { tracing: is_on.then(|| without_provider(scope, config)), ..off };
    };
    let Some(provider) = spec.provider.filter(|_| !spec.is_disabled) else { return off };
    let Some(provider::Collector { mut tracing, samples_itself }) = provider::collector(scope, provider)
    else {
        return off;
    };
    let sampling =
        if samples_itself { 100.0 } else { spec.sampling.unwrap_or_else(|| default_sampling(scope, config)) };
    sample(&mut tracing, sampling);
    let is_new = scope.proxy.is_since(29);
    let custom = spec.tags.filter(|tags| !tags.is_empty());
    let custom = custom.map_or_else(|| tags::of_config(config), |own| tags::custom(own, is_new));
    tracing.custom_tags = tags::all(scope, spec.has_own_tags, custom);
    tracing.max_path_tag_length = tracing.max_path_tag_length.or(max_path_length(config));
    tracing.no_context_propagation = spec.hides_context && scope.proxy.is_since(30);
    Traced { tracing: Some(tracing), marks_request_id: spec.marks_request_id }
}

/// What objects say, laid over the mesh's default; `None` when nothing does.
fn spec<'a>(scope: Scope<'a>, mode: WorkloadMode) -> Option<Spec<'a>> {
    let mesh = &scope.snapshot.mesh;
    let workload = scope.workload();
    let applied = scope.snapshot.telemetry.applied(workload).tracing;
    let defaults = mesh.default_providers.as_ref();
    let default = defaults.and_then(|defaults| defaults.tracing.first());
    if applied.is_empty() && default.is_none() {
        return None;
    }
    let find = |name: &str| extension_provider::find(&mesh.extension_providers, name);
    let mut spec = Spec {
        provider: default.and_then(|name| find(name)),
        is_disabled: false,
        sampling: None,
        tags: None,
        marks_request_id: true,
        has_own_tags: true,
        hides_context: false,
    };
    for item in applied {
        let own = item.r#match.as_ref().map_or(WorkloadMode::ClientAndServer, |selector| selector.mode());
        if own != WorkloadMode::ClientAndServer && own != mode {
            continue;
        }
        if let Some(first) = item.providers.first() {
            spec.provider = find(&first.name);
        }
        if let Some(disabled) = &item.disable_span_reporting {
            spec.is_disabled = disabled.value;
        }
        if !item.custom_tags.is_empty() {
            spec.tags = Some(&item.custom_tags);
        }
        if let Some(percent) = &item.random_sampling_percentage {
            spec.sampling = Some(percent.value);
        }
        if let Some(marks) = &item.use_request_id_for_trace_sampling {
            spec.marks_request_id = marks.value;
        }
        if let Some(own) = &item.enable_istio_tags {
            spec.has_own_tags = own.value;
        }
        if let Some(hides) = &item.disable_context_propagation {
            spec.hides_context = hides.value;
        }
    }
    Some(spec)
}

fn without_provider(scope: Scope<'_>, config: Option<&ProxyConfig>) -> Tracing {
    let mut tracing = Tracing::default();
    sample(&mut tracing, default_sampling(scope, config));
    let own = config.and_then(|config| config.tracing.as_ref()?.enable_istio_tags.as_ref());
    let has_own_tags = own.is_none_or(|own| own.value);
    tracing.custom_tags = tags::all(scope, has_own_tags, tags::of_config(config));
    tracing.max_path_tag_length = max_path_length(config);
    tracing
}

fn sample(tracing: &mut Tracing, percent: f64) {
    let of = |value| Some(Percent { value });
    tracing.client_sampling = of(100.0);
    tracing.overall_sampling = of(100.0);
    // Envoy refuses others.
    tracing.random_sampling = of(if percent.is_nan() { 0.0 } else { percent.clamp(0.0, 100.0) });
}

/// Percentage of requests that begin a trace, by the proxy's settings.
fn default_sampling(scope: Scope<'_>, config: Option<&ProxyConfig>) -> f64 {
    let own = config.and_then(|config| config.tracing.as_ref()).map_or(0.0, |tracing| tracing.sampling);
    match own {
        own if own > 100.0 => 1.0,
        own if own > 0.0 => own,
        _ => scope.snapshot.settings.features.trace_sampling.percent(),
    }
}

fn max_path_length(config: Option<&ProxyConfig>) -> Option<u32> {
    let length = config?.tracing.as_ref()?.max_path_tag_length;
    (length != 0).then_some(length)
}

#[cfg(test)]
mod tests;
