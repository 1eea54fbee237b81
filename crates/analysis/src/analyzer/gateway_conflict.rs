//! Gateways of the same proxies that want the same host at the same port.

use std::collections::HashMap;

use proto::istio::networking::v1alpha3::Gateway;

use super::Report;
use super::mesh::label_field;
use crate::labels::{pairs, selector};
use crate::{Code, Kind, Resource, World};

type Place<'a> = (u32, &'a str, &'a str);

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let gateways: Vec<(&'a Resource, Gateway)> = world.all(Kind::Gateway).collect();
    let mut taken: HashMap<Place<'_>, Vec<(&'a Resource, &Gateway)>> = HashMap::new();
    for (one, gateway) in &gateways {
        for server in &gateway.servers {
            for host in &server.hosts {
                let port = server.port.as_ref().map_or(0, |port| port.number);
                taken.entry((port, host, &server.bind)).or_default().push((*one, gateway));
            }
        }
    }
    let mut shared = Shared { world, known: HashMap::new() };
    for (one, gateway) in &gateways {
        let own = selector(pairs(&gateway.selector));
        if gateway.servers.is_empty() && !own.is_empty() && !shared.is_used(gateway, &gateways) {
            let field = label_field("spec.selector", &own);
            report.add_at(Code::ReferencedResourceNotFound, one, &field, &["selector", &own]);
        }
        for server in &gateway.servers {
            let port = server.port.as_ref().map_or(0, |port| port.number);
            let places = server.hosts.iter().map(|host| (port, host.as_str(), server.bind.as_str()));
            let others = places.filter_map(|place| taken.get(&place)).flatten();
            let mut names: Vec<String> = others
                .filter(|(other, _)| other.name != one.name || other.namespace != one.namespace)
                .filter(|(_, their)| shared.have(gateway, their))
                .map(|(other, _)| other.full_name())
                .collect();
            names.sort();
            names.dedup();
            if !names.is_empty() {
                let values = [&*names.join(","), &*own, &*port.to_string(), &*server.hosts.join(",")];
                report.add(Code::ConflictingGateways, one, &values);
            }
        }
    }
}

/// Which selectors have a pod in common.
struct Shared<'a> {
    world: &'a World,
    known: HashMap<(String, String), bool>,
}

impl Shared<'_> {
    fn have(&mut self, first: &Gateway, second: &Gateway) -> bool {
        if first.selector == second.selector {
            return true;
        }
        // One must say all that the other says: others meet by chance only.
        let says_more = config::matches(&first.selector, &second.selector)
            || config::matches(&second.selector, &first.selector);
        if !says_more {
            return false;
        }
        let key = (selector(pairs(&first.selector)), selector(pairs(&second.selector)));
        let world = self.world;
        *self.known.entry(key).or_insert_with(|| {
            let mut pods = world.selected_pods(None, pairs(&first.selector));
            pods.any(|(pod, _)| pod.labels.fits(pairs(&second.selector)))
        })
    }

    /// Whether some gateway with a server is for the proxies of this one.
    fn is_used(&mut self, gateway: &Gateway, all: &[(&Resource, Gateway)]) -> bool {
        all.iter().any(|(_, other)| !other.servers.is_empty() && self.have(gateway, other))
    }
}
