//! Where the routes of a VirtualService lead to.

use proto::istio::networking::v1alpha3::{Destination, VirtualService};

/// A destination and the field that names its host.
pub(super) struct Placed<'a> {
    pub(super) host: &'a str,
    pub(super) subset: &'a str,
    pub(super) port: Option<u32>,
    pub(super) field: String,
    /// Whether it gets copies only.
    pub(super) is_mirror: bool,
}

/// All destinations of a VirtualService; one that is not written has an empty host.
pub(super) fn all(service: &VirtualService) -> Vec<Placed<'_>> {
    let mut all = Vec::new();
    for (i, route) in service.tcp.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            let field = format!("spec.tcp[{i}].route[{j}].destination.host");
            all.push(placed(to.destination.as_ref(), field, false));
        }
    }
    for (i, route) in service.tls.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            let field = format!("spec.tls[{i}].route[{j}].destination.host");
            all.push(placed(to.destination.as_ref(), field, false));
        }
    }
    for (i, route) in service.http.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            let field = format!("spec.http[{i}].route[{j}].destination.host");
            all.push(placed(to.destination.as_ref(), field, false));
        }
        if route.mirror.is_some() {
            all.push(placed(route.mirror.as_ref(), format!("spec.http[{i}].mirror.host"), true));
        }
        for (j, to) in route.mirrors.iter().enumerate() {
            let field = format!("spec.http[{i}].mirrors[{j}].destination.host");
            all.push(placed(to.destination.as_ref(), field, true));
        }
    }
    all
}

fn placed(destination: Option<&Destination>, field: String, is_mirror: bool) -> Placed<'_> {
    Placed {
        host: destination.map_or("", |one| &one.host),
        subset: destination.map_or("", |one| &one.subset),
        port: destination.and_then(|one| one.port.as_ref()).map(|port| port.number),
        field,
        is_mirror,
    }
}
