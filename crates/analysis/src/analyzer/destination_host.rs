//! VirtualServices that lead to services or ports that there are not, or leave
//! open to which.

use std::collections::HashMap;

use proto::istio::networking::v1alpha3::VirtualService;

use super::Report;
use super::destinations::{self, Placed};
use crate::hosts::Found;
use crate::message::list;
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    // Services that have routes to a subset of their own host.
    let mut own: HashMap<String, Vec<&'a Resource>> = HashMap::new();
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        let routes = service.http.iter().flat_map(|route| &route.route);
        for destination in routes.filter_map(|to| to.destination.as_ref()) {
            if !destination.subset.is_empty() && service.hosts.contains(&destination.host) {
                own.entry(destination.host.clone()).or_default().push(one);
            }
        }
    }
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        for to in destinations::all(&service) {
            match world.hosts().find(&one.namespace, &service.export_to, to.host) {
                Some(found) => ports(one, &to, found, report),
                None => {
                    let what = if to.is_mirror { "mirror host" } else { "host" };
                    report.add_at(Code::ReferencedResourceNotFound, one, &to.field, &[what, to.host]);
                }
            }
        }
        if !service.gateways.is_empty() {
            subsets(&own, one, &service, report);
        }
    }
}

fn ports<'a>(one: &'a Resource, to: &Placed<'_>, found: &Found, report: &mut Report<'a>) {
    match to.port {
        None if found.ports.len() > 1 => {
            let numbers: Vec<String> = found.ports.iter().map(ToString::to_string).collect();
            let values = [to.host, &list(&numbers)];
            report.add_at(Code::VirtualServiceDestinationPortSelectorRequired, one, &to.field, &values);
        }
        Some(port) if !found.ports.contains(&port) => {
            let place = format!("{}:{port}", to.host);
            report.add_at(Code::ReferencedResourceNotFound, one, &to.field, &["host:port", &place]);
        }
        _ => {}
    }
}

/// Routes of a gateway lead to the host itself, whatever routes it has in the mesh.
fn subsets<'a>(
    own: &HashMap<String, Vec<&'a Resource>>,
    one: &'a Resource,
    service: &VirtualService,
    report: &mut Report<'a>,
) {
    for (i, route) in service.http.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            let Some(destination) = to.destination.as_ref().filter(|to| to.subset.is_empty()) else {
                continue;
            };
            for other in own.get(&destination.host).into_iter().flatten() {
                let field = format!("spec.http[{i}].route[{j}].destination.host");
                let values = [&*other.full_name(), &*one.full_name()];
                report.add_at(Code::IngressRouteRulesNotAffected, one, &field, &values);
            }
        }
    }
}
