//! Traces for a provider that is on its way out.

use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::Provider;
use proto::istio::telemetry::v1alpha1::Telemetry;

use super::Report;
use crate::{Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let providers = world.mesh.extension_providers.iter();
    let lightstep = providers.filter(|one| matches!(one.provider, Some(Provider::Lightstep(_))));
    let names: Vec<&str> = lightstep.map(|one| one.name.as_str()).collect();
    if names.is_empty() {
        return;
    }
    for (one, telemetry) in world.all::<Telemetry>(Kind::Telemetry) {
        let used = telemetry.tracing.iter().flat_map(|tracing| &tracing.providers);
        for provider in used.filter(|provider| names.contains(&provider.name.as_str())) {
            let what = format!(
                "The Lightstep provider {} is deprecated, please migrate to OpenTelemetry provider.",
                provider.name
            );
            report.add(Code::Deprecated, one, &[&what]);
        }
    }
}
