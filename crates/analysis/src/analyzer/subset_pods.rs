//! DestinationRules for hosts that there are not, and subsets without workloads.

use std::collections::HashMap;

use proto::istio::networking::v1alpha3::{DestinationRule, Subset, WorkloadEntry};

use super::Report;
use crate::hosts::Found;
use crate::labels::pairs;
use crate::{Code, Kind, Labels, World};

/// Labels that the control plane gives endpoints by where they are.
const PLACES: [&str; 3] = [names::label::REGION, names::label::ZONE, names::label::SUB_ZONE];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let nodes: HashMap<&str, &Labels> = world.of(Kind::Node).map(|one| (&*one.name, &one.labels)).collect();
    for (one, rule) in world.all::<DestinationRule>(Kind::DestinationRule) {
        let Some(found) = world.hosts().find(&one.namespace, &rule.export_to, &rule.host) else {
            report.add(Code::UnknownDestinationRuleHost, one, &[&rule.host]);
            continue;
        };
        for subset in &rule.subsets {
            if !has_workloads(world, &nodes, found, subset) {
                report.add(Code::DestinationRuleSubsetNotSelectPods, one, &[&subset.name]);
            }
        }
    }
}

/// Whether a label is one that pods need not have themselves.
fn is_given(name: &str) -> bool {
    PLACES.contains(&name)
        || [names::label::HOSTNAME, names::label::CLUSTER, names::label::NETWORK].contains(&name)
}

fn has_workloads(world: &World, nodes: &HashMap<&str, &Labels>, found: &Found, subset: &Subset) -> bool {
    let listed = |labels: &Labels| labels.fits(pairs(&subset.labels).filter(|(name, _)| !is_given(name)));
    if found.workloads.iter().any(listed) {
        return true;
    }
    // Who lists endpoints of a service by hand may list any.
    let Some(selector) = &found.selector else { return found.is_kubernetes };
    let own = selector.iter().map(|(name, value)| (&**name, &**value));
    let of_subset = pairs(&subset.labels).filter(|(name, _)| !is_given(name));
    let wanted: Vec<(&str, &str)> = own.chain(of_subset).collect();
    let mut pods = world.selected_pods(Some(&found.namespace), wanted.iter().copied());
    if pods.any(|(pod, spec)| {
        let node = nodes.get(&*spec.node_name).copied();
        pairs(&subset.labels).filter(|(name, _)| is_given(name)).all(|(name, value)| {
            let of_node = match name {
                names::label::HOSTNAME => (!spec.node_name.is_empty()).then_some(&*spec.node_name),
                place if PLACES.contains(&place) => {
                    node.and_then(|labels| labels.get(place)).filter(|place| !place.is_empty())
                }
                // Which cluster and network this is, nobody says.
                _ => return true,
            };
            of_node.or_else(|| pod.labels.get(name)) == Some(value)
        })
    }) {
        return true;
    }
    !found.is_kubernetes && has_entries(world, found, &wanted)
}

/// Whether workloads that are no pods have these labels.
fn has_entries(world: &World, found: &Found, wanted: &[(&str, &str)]) -> bool {
    let entries = world.all::<WorkloadEntry>(Kind::WorkloadEntry);
    let mut here = entries.filter(|(one, _)| one.namespace == found.namespace);
    here.any(|(one, workload)| {
        let label =
            |name: &str| workload.labels.get(name).map(String::as_str).or_else(|| one.labels.get(name));
        wanted.iter().all(|(name, value)| label(name) == Some(value))
    })
}
