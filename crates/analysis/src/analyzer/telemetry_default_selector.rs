//! Several Telemetries for all workloads of a namespace.

use std::collections::BTreeMap;

use proto::istio::telemetry::v1alpha1::Telemetry;

use super::Report;
use super::mesh::names;
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut namespaces: BTreeMap<&str, Vec<&'a Resource>> = BTreeMap::new();
    for (one, telemetry) in world.all::<Telemetry>(Kind::Telemetry) {
        // One for a gateway is not for all.
        let has_target = telemetry.target_ref.is_some() || !telemetry.target_refs.is_empty();
        if telemetry.selector.is_none() && !has_target {
            namespaces.entry(&one.namespace).or_default().push(one);
        }
    }
    for (namespace, all) in namespaces.iter().filter(|(_, all)| all.len() > 1) {
        let values = [&*names(all), namespace];
        for one in all {
            report.add(Code::MultipleTelemetriesWithoutWorkloadSelectors, one, &values);
        }
    }
}
