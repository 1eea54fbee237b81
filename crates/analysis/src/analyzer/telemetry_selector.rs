//! Telemetries that are for no pod, or of which several are for the same one.

use std::collections::BTreeMap;

use proto::istio::telemetry::v1alpha1::Telemetry;

use super::Report;
use super::mesh::{label_field, names};
use crate::labels::{pairs, selector};
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut pods: BTreeMap<(&str, &str), Vec<&'a Resource>> = BTreeMap::new();
    for (one, telemetry) in world.all::<Telemetry>(Kind::Telemetry) {
        let wanted = telemetry.selector.as_ref().map(|wanted| &wanted.match_labels);
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { continue };
        let mut is_used = false;
        for (pod, _) in world.selected_pods(Some(&one.namespace), pairs(wanted)) {
            is_used = true;
            pods.entry((&pod.namespace, &pod.name)).or_default().push(one);
        }
        if !is_used {
            let own = selector(pairs(wanted));
            let field = label_field("spec.selector.matchLabels", &own);
            report.add_at(Code::ReferencedResourceNotFound, one, &field, &["selector", &own]);
        }
    }
    for ((namespace, name), all) in pods.iter().filter(|(_, all)| all.len() > 1) {
        let values = [&*names(all), namespace, name];
        for one in all {
            report.add_at(Code::ConflictingTelemetryWorkloadSelectors, one, "metadata.name", &values);
        }
    }
}
