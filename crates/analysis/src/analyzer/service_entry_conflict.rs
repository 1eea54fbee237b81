//! ServiceEntries that disagree on what a port of a host speaks.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proto::istio::networking::v1alpha3::ServiceEntry;

use super::Report;
use crate::hosts::{EVERYWHERE, scopes};
use crate::{Code, Kind, Resource, World};

/// Namespace that sees it, host and port.
type Place = (String, String, u32);

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut places: BTreeMap<Place, Vec<(String, &'a Resource)>> = BTreeMap::new();
    for (one, entry) in world.all::<ServiceEntry>(Kind::ServiceEntry) {
        for scope in scopes(&one.namespace, entry.export_to.iter().map(String::as_str)) {
            for host in &entry.hosts {
                for port in &entry.ports {
                    let all = places.entry((scope.to_owned(), host.clone(), port.number)).or_default();
                    all.push((port.protocol.to_ascii_uppercase(), one));
                }
            }
        }
    }
    let mut told = HashSet::new();
    for ((scope, host, port), here) in &places {
        let elsewhere = (scope != EVERYWHERE)
            .then(|| places.get(&(EVERYWHERE.to_owned(), host.clone(), *port)))
            .flatten();
        let all = || here.iter().chain(elsewhere.into_iter().flatten());
        let protocols: BTreeSet<&str> = all().map(|(protocol, _)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all().map(|(_, one)| one.full_name()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let protocols = protocols.into_iter().collect::<Vec<_>>().join(", ");
        for (_, one) in all() {
            if told.insert(std::ptr::from_ref(*one)) {
                let values = [&*names, &**host, &*port.to_string(), &*protocols];
                report.add_at(Code::ConflictingServiceEntryProtocol, one, "metadata.name", &values);
            }
        }
    }
}
