//! Several rules for one host in one namespace.

use std::collections::BTreeMap;

use names::Hostname;

use super::{Duplicate, Rule};

/// Adds a rule to those that are there already, which are older: it is merged
/// into each that is for the same clients, and stands by itself if there is none.
pub(super) fn add(
    rules: &mut BTreeMap<Hostname, Vec<Rule>>,
    rule: &Rule,
    duplicates: &mut BTreeMap<Hostname, Duplicate>,
) {
    let known = rules.entry(rule.host.clone()).or_default();
    let mut is_new = true;
    for first in known.iter_mut() {
        let is_visible_where_first_is = rule.export_to == first.export_to
            || (!first.export_to.is_empty() && rule.export_to.is_superset(&first.export_to));
        let is_for_other_workloads = rule.selector.is_some() && rule.selector != first.selector;
        if !is_visible_where_first_is || is_for_other_workloads {
            continue;
        }
        let known: Vec<&str> = first.subsets.iter().map(|subset| subset.name.as_str()).collect();
        let (twice, more): (Vec<_>, Vec<_>) =
            rule.subsets.iter().cloned().partition(|subset| known.contains(&subset.name.as_str()));
        if let Some(subset) = twice.into_iter().next() {
            let rule = rule.origin.clone();
            duplicates.entry(first.host.clone()).or_insert(Duplicate { subset: subset.name, rule });
        }
        first.subsets.extend(more);
        if first.policy.is_none() {
            first.policy.clone_from(&rule.policy);
        }
        // One for all adds to one that selects, but must still be there for the rest.
        is_new &= first.selector != rule.selector;
    }
    if is_new {
        known.push(rule.clone());
    }
}
