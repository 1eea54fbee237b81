//! Hosts that two entries of a list have in common. Lists may be long: each
//! host is compared with few others.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Hosts, where `*.a.b` is every host that ends in `.a.b`.
#[derive(Default)]
pub(super) struct Hosts<'a> {
    /// What follows the `*` of wildcards.
    wide: HashMap<&'a str, &'a str>,
    /// All hosts by their bytes from the end on.
    reversed: BTreeMap<Vec<u8>, &'a str>,
}

impl<'a> Hosts<'a> {
    /// Adds a host; says which one has something in common with it.
    pub(super) fn add(&mut self, host: &'a str) -> Option<&'a str> {
        let found = self.find(host);
        if let Some(end) = host.strip_prefix('*') {
            self.wide.entry(end).or_insert(host);
        }
        self.reversed.entry(host.bytes().rev().collect()).or_insert(host);
        found
    }

    fn find(&self, host: &str) -> Option<&'a str> {
        // Wildcards of which this is one, or of whose hosts this has all.
        if !self.wide.is_empty() {
            let ends = host.char_indices().map(|(at, _)| &host[at..]).chain([""]);
            if let Some(wide) = ends.take(256).find_map(|end| self.wide.get(end)) {
                return Some(wide);
            }
        }
        let end = host.strip_prefix('*').unwrap_or(host);
        let key: Vec<u8> = end.bytes().rev().collect();
        let (first, other) = self.reversed.range((Bound::Included(key.clone()), Bound::Unbounded)).next()?;
        let is_common = if host.starts_with('*') { first.starts_with(&key) } else { *first == key };
        is_common.then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule by itself.
    fn overlap(one: &str, other: &str) -> bool {
        let covers = |wide: &str, host: &str| wide.strip_prefix('*').is_some_and(|end| host.ends_with(end));
        one == other || covers(one, other) || covers(other, one)
    }

    proptest! {
        #[test]
        fn it_finds_what_comparing_all_finds(hosts in proptest::collection::vec("[*]?[.]?[ab][.][ab]{1,2}|[*]", 0..8)) {
            let mut before = Hosts::default();
            for (index, host) in hosts.iter().enumerate() {
                let found = before.add(host);
                let any = hosts[..index].iter().any(|other| overlap(host, other));
                prop_assert_eq!(found.is_some(), any, "{} in {:?}: {:?}", host, &hosts[..index], found);
                prop_assert!(found.is_none_or(|other| overlap(host, other)));
            }
        }
    }
}
