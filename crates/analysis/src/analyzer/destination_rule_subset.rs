//! Subsets that VirtualServices lead to and no DestinationRule defines.

use std::collections::HashSet;

use proto::istio::networking::v1alpha3::{DestinationRule, VirtualService};

use super::{Report, destinations};
use crate::hosts::service_of;
use crate::{Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut known = HashSet::new();
    for (one, rule) in world.all::<DestinationRule>(Kind::DestinationRule) {
        let (namespace, host) = place(&one.namespace, &rule.host);
        known.extend(
            rule.subsets.iter().map(|subset| (namespace.to_owned(), host.to_owned(), subset.name.clone())),
        );
    }
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        for to in destinations::all(&service).iter().filter(|to| !to.subset.is_empty()) {
            let (namespace, host) = place(&one.namespace, to.host);
            if !known.contains(&(namespace.to_owned(), host.to_owned(), to.subset.to_owned())) {
                let what = if to.is_mirror { "mirror+subset" } else { "host+subset" };
                let values = [&*format!("{what} in destinationrule"), &*format!("{}+{}", to.host, to.subset)];
                report.add_at(Code::ReferencedResourceNotFound, one, &to.field, &values);
            }
        }
    }
}

/// The namespace and name that a host means. Hosts outside of the cluster mean
/// the same in all namespaces.
fn place<'a>(namespace: &'a str, host: &'a str) -> (&'a str, &'a str) {
    service_of(host).unwrap_or_else(|| if host.contains('.') { ("", host) } else { (namespace, host) })
}
