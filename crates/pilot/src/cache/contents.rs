//! What is in the cache, for debug pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use names::TypeUrl;
use xds::Resource;

use super::named::Named;
use super::{Cache, Shared, lock};
use crate::depend::{Part, Stamps};
use crate::finding::{Finding, Topic};

/// Findings that are remembered of one type for one class.
const MOST_FINDINGS: usize = 10_000;

impl Cache {
    /// What was found while that which proxies now have was made; of each topic
    /// and key one finding.
    #[must_use]
    pub fn findings(&self, stamps: &Stamps) -> Vec<Finding> {
        let mut all: BTreeMap<(Topic, String), Finding> = BTreeMap::new();
        for shared in self.in_use() {
            let found = shared.findings(stamps).into_iter();
            all.extend(found.map(|finding| ((finding.topic, finding.key.clone()), finding)));
        }
        all.into_values().collect()
    }

    /// All resources by type: each once, by name.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<TypeUrl, Vec<Resource>> {
        let mut all: BTreeMap<TypeUrl, BTreeMap<(Arc<str>, u64), Resource>> = BTreeMap::new();
        for shared in self.in_use() {
            for (type_url, resource) in shared.contents() {
                let own = all.entry(type_url).or_default();
                own.insert((resource.name.clone(), resource.version), resource);
            }
        }
        all.into_iter().map(|(type_url, all)| (type_url, all.into_values().collect())).collect()
    }

    /// The classes that some proxy belongs to.
    fn in_use(&self) -> Vec<Arc<Shared>> {
        let classes = lock(&self.classes);
        classes.values().filter(|shared| Arc::strong_count(shared) > 1).cloned().collect()
    }
}

impl Shared {
    fn findings(&self, stamps: &Stamps) -> Vec<Finding> {
        let mut all = Vec::new();
        for slot in [&self.clusters, &self.listeners, &self.names] {
            all.extend_from_slice(&lock(slot).findings);
        }
        let named = [(&self.routes, Part::Routes), (&self.endpoints, Part::Endpoints)];
        for (named, part) in named {
            let stamp = self.stamp(stamps, part);
            // What nobody asks for any more is not made again. Right after a change
            // nothing has been.
            let is_young = stamp == stamps.serial();
            all.extend(lock(named).findings(if is_young { 0 } else { stamp }));
        }
        all
    }

    fn contents(&self) -> Vec<(TypeUrl, Resource)> {
        let mut all = Vec::new();
        let lists = [
            (TypeUrl::Cluster, &self.clusters),
            (TypeUrl::Listener, &self.listeners),
            (TypeUrl::NameTable, &self.names),
        ];
        for (type_url, slot) in lists {
            let slot = lock(slot);
            let list = slot.list.iter().flat_map(|list| list.iter());
            all.extend(list.map(|resource| (type_url.clone(), resource.clone())));
        }
        let named = [
            (TypeUrl::Cluster, &self.asked_clusters),
            (TypeUrl::Listener, &self.asked_listeners),
            (TypeUrl::Route, &self.routes),
            (TypeUrl::Endpoint, &self.endpoints),
        ];
        for (type_url, named) in named {
            all.extend(lock(named).resources().map(|resource| (type_url.clone(), resource.clone())));
        }
        all
    }
}

impl Named {
    /// Takes what was found while the resources of those names were made, each
    /// by the name that it is about: a cluster's, else the first of them.
    pub(super) fn find(&mut self, names: &BTreeSet<Arc<str>>, findings: Vec<Finding>) {
        if !self.findings.is_empty() {
            names.iter().for_each(|name| drop(self.findings.remove(name)));
        }
        if findings.is_empty() {
            return;
        }
        if self.found() + findings.len() > MOST_FINDINGS {
            // Anybody may ask for any name; what is not remembered is never told.
            let mut all = std::mem::take(&mut self.findings);
            all.retain(|name, _| self.serial_of(name).is_some());
            self.findings = all;
        }
        let room = MOST_FINDINGS.saturating_sub(self.found());
        for finding in findings.into_iter().take(room) {
            let own = names.get(finding.key.as_str()).or_else(|| names.first());
            if let Some(name) = own {
                self.findings.entry(name.clone()).or_default().push(finding);
            }
        }
    }

    fn found(&self) -> usize {
        self.findings.values().map(Vec::len).sum()
    }

    /// What was found, by names that were made at that serial or later.
    fn findings(&self, serial: u64) -> Vec<Finding> {
        let is_good = |name: &Arc<str>| self.serial_of(name).is_some_and(|made| made >= serial);
        let good = self.findings.iter().filter(|(name, _)| is_good(name));
        good.flat_map(|(_, findings)| findings.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_remembered_up_to_a_bound_whatever_names_are_asked_for() {
        let mut named = Named::default();
        let finding = |index: usize| Finding {
            topic: Topic::DuplicateDomain,
            key: index.to_string(),
            message: String::new(),
            proxy: String::new(),
            object: None,
        };
        for index in 0..3 * MOST_FINDINGS / 100 {
            named.find(&[Arc::from(format!("{index}:80"))].into(), (0..100).map(finding).collect());
        }
        assert!(named.found() > 0 && named.found() <= MOST_FINDINGS);
        let first = named.findings.keys().next().cloned().unwrap();
        named.find(&[first.clone()].into(), Vec::new());
        assert!(!named.findings.contains_key(&first), "a name that is made again is looked at anew");
    }
}
