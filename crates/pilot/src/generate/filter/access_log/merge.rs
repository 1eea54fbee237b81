//! Which providers are told, of all that objects of several levels say.

use std::collections::{BTreeMap, BTreeSet};

use proto::istio::telemetry::v1alpha1::{AccessLogging, WorkloadMode};

/// What is to be done with one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spec<'a> {
    /// Whether it is told nothing.
    pub(super) is_disabled: bool,
    /// Condition in CEL.
    pub(super) expression: Option<&'a str>,
}

/// Providers by name. The last level that names any says which ones count;
/// items without providers mean those named before them.
pub(super) fn providers<'a>(
    levels: &[&'a [AccessLogging]],
    defaults: &'a [String],
    mode: WorkloadMode,
) -> BTreeMap<&'a str, Spec<'a>> {
    let defaults: Vec<&str> = defaults.iter().map(String::as_str).collect();
    if levels.is_empty() {
        return defaults.into_iter().map(|name| (name, Spec::default())).collect();
    }
    let fits = |item: &AccessLogging| {
        item.r#match.as_ref().is_none_or(|selector| {
            selector.mode() == WorkloadMode::ClientAndServer || selector.mode() == mode
        })
    };
    let mut in_force: BTreeSet<&str> = defaults.iter().copied().collect();
    let mut expressions: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for level in levels {
        let mut named = BTreeSet::new();
        for item in level.iter().filter(|item| fits(item)) {
            for name in names(item) {
                named.insert(name);
                expressions.insert(name, item.filter.as_ref().map(|filter| filter.expression.as_str()));
            }
        }
        if !named.is_empty() {
            in_force = named;
        }
    }
    let mut found = BTreeMap::new();
    let mut inherited = defaults;
    for item in levels.iter().flat_map(|level| level.iter()) {
        let own: Vec<&str> = names(item).collect();
        if !own.is_empty() {
            inherited = own;
        }
        for name in inherited.iter().filter(|name| in_force.contains(*name) && fits(item)) {
            let is_disabled = item.disabled.as_ref().is_some_and(|disabled| disabled.value);
            let expression = if is_disabled { None } else { expressions.get(name).copied().flatten() };
            found.insert(*name, Spec { is_disabled, expression });
        }
    }
    found
}

fn names(item: &AccessLogging) -> impl Iterator<Item = &str> {
    item.providers.iter().map(|provider| provider.name.as_str())
}
