//! Sidecars that are for no pod, or of which several are for the same one.

use std::collections::{BTreeMap, HashSet};

use proto::istio::networking::v1alpha3::Sidecar;

use super::Report;
use super::mesh::{is_ambient, is_ambient_namespace, label_field, names};
use crate::labels::{pairs, selector};
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut pods: BTreeMap<(&str, &str), (&'a Resource, Vec<&'a Resource>)> = BTreeMap::new();
    let mut namespaces: BTreeMap<&str, Vec<&'a Resource>> = BTreeMap::new();
    for (one, sidecar) in world.all::<Sidecar>(Kind::Sidecar) {
        let wanted = sidecar.workload_selector.as_ref().map(|wanted| &wanted.labels);
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
            namespaces.entry(&one.namespace).or_default().push(one);
            continue;
        };
        let mut is_used = false;
        for (pod, _) in world.selected_pods(Some(&one.namespace), pairs(wanted)) {
            is_used = true;
            pods.entry((&pod.namespace, &pod.name)).or_insert_with(|| (pod, Vec::new())).1.push(one);
        }
        if !is_used {
            let own = selector(pairs(wanted));
            let field = label_field("spec.workloadSelector.labels", &own);
            report.add_at(Code::ReferencedResourceNotFound, one, &field, &["selector", &own]);
        }
    }
    let mut told = HashSet::new();
    for ((namespace, name), (pod, sidecars)) in &pods {
        if is_ambient(pod) {
            for one in sidecars.iter().filter(|one| told.insert(std::ptr::from_ref(**one))) {
                let why = "selected workload is in ambient mode, the policy has no impact";
                report.add(Code::IneffectivePolicy, one, &[why]);
            }
        } else if sidecars.len() > 1 {
            let values = [&*names(sidecars), namespace, name];
            for one in sidecars {
                report.add_at(Code::ConflictingSidecarWorkloadSelectors, one, "metadata.name", &values);
            }
        }
    }
    for (namespace, sidecars) in &namespaces {
        if world.namespace_labels(namespace).is_some_and(is_ambient_namespace) {
            for one in sidecars.iter().filter(|one| told.insert(std::ptr::from_ref(**one))) {
                let why = "namespace is in ambient mode, the policy has no impact";
                report.add(Code::IneffectivePolicy, one, &[why]);
            }
        } else if sidecars.len() > 1 {
            let values = [&*names(sidecars), namespace];
            for one in sidecars {
                report.add(Code::MultipleSidecarsWithoutWorkloadSelectors, one, &values);
            }
        }
    }
}
