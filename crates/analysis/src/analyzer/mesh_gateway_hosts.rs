//! Several VirtualServices for the same host of the mesh: which of them is in
//! force is a matter of their age.

use std::collections::{BTreeMap, HashSet};

use names::Hostname;
use proto::istio::networking::v1alpha3::VirtualService;

use super::Report;
use crate::hosts::{EVERYWHERE, fqdn, scopes};
use crate::{Code, Kind, Resource, World};

type All<'a> = BTreeMap<(String, String), Vec<&'a Resource>>;

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut hosts: All<'a> = BTreeMap::new();
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        if !service.gateways.is_empty() && !service.gateways.iter().any(|name| name == "mesh") {
            continue;
        }
        for scope in scopes(&one.namespace, service.export_to.iter().map(String::as_str)) {
            for host in &service.hosts {
                let all = hosts.entry((scope.to_owned(), fqdn(&one.namespace, host))).or_default();
                // A host may stand twice, in two forms.
                if all.last().is_none_or(|last| !std::ptr::eq(*last, one)) {
                    all.push(one);
                }
            }
        }
    }
    let everywhere = hosts.iter().filter(|((scope, _), _)| scope == EVERYWHERE);
    let wildcards: Vec<_> = everywhere.filter(|((_, host), _)| host.starts_with('*')).collect();
    let mut told = HashSet::new();
    for ((scope, host), services) in &hosts {
        let mut all = services.clone();
        if scope != EVERYWHERE {
            all.extend(from_everywhere(&hosts, &wildcards, host));
            let mut seen = HashSet::new();
            all.retain(|one| seen.insert(std::ptr::from_ref(*one)));
        }
        if all.len() < 2 {
            continue;
        }
        let mut names: Vec<String> = all.iter().map(|one| one.full_name()).collect();
        names.sort();
        let names = names.join(",");
        for one in all {
            if told.insert(std::ptr::from_ref(one)) {
                let values = [&*names, &*format!("{scope}/{host}")];
                report.add_at(Code::ConflictingMeshGatewayVirtualServiceHosts, one, "metadata.name", &values);
            }
        }
    }
}

/// Objects for all namespaces whose host may be the same.
fn from_everywhere<'a>(
    hosts: &All<'a>,
    wildcards: &[(&(String, String), &Vec<&'a Resource>)],
    host: &str,
) -> Vec<&'a Resource> {
    let own = Hostname::new(host);
    let is_it = |other: &str| own.matches(&Hostname::new(other));
    if own.is_wildcard() {
        let all = hosts.iter().filter(|((scope, other), _)| scope == EVERYWHERE && is_it(other));
        return all.flat_map(|(_, services)| services.iter().copied()).collect();
    }
    let exact = hosts.get(&(EVERYWHERE.to_owned(), host.to_owned())).into_iter().flatten().copied();
    let others = wildcards.iter().filter(|((_, other), _)| is_it(other));
    exact.chain(others.flat_map(|(_, services)| services.iter().copied())).collect()
}
