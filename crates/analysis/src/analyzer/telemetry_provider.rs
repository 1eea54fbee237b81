//! Telemetries that log nowhere: they name no provider, and the mesh has no
//! default one.

use proto::istio::telemetry::v1alpha1::Telemetry;

use super::Report;
use crate::{Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let default = world.mesh.default_providers.as_ref();
    if default.is_some_and(|default| !default.access_logging.is_empty()) {
        return;
    }
    for (one, telemetry) in world.all::<Telemetry>(Kind::Telemetry) {
        let on =
            telemetry.access_logging.iter().filter(|log| log.disabled.as_ref().is_none_or(|off| !off.value));
        for _ in on.filter(|log| log.providers.is_empty()) {
            report.add(Code::InvalidTelemetryProvider, one, &[&one.name, &one.namespace]);
        }
    }
}
