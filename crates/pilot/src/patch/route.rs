//! Patches of route configurations, virtual hosts and routes.

use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::route_configuration_match::RouteMatch;
use proto::istio::networking::v1alpha3::envoy_filter::route_configuration_match::route_match::Action as Wanted;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, PatchContext};

use super::{Patches, decoded, is_merge, list, matching, merge};
use crate::scope::{Scope, workload_ports};
use crate::snapshot::envoy_filter::Patch;

pub(super) fn patch(
    scope: Scope<'_>,
    context: PatchContext,
    patches: &Patches<'_>,
    routes: &mut RouteConfiguration,
) {
    let name = routes.name.clone();
    let fitting = |kind: ApplyTo| -> Vec<&Patch> {
        let all = patches.of(kind).iter().copied();
        all.filter(|patch| is_configuration(scope, context, patch, &name)).collect()
    };
    for patch in fitting(ApplyTo::RouteConfiguration) {
        if let Some(value) = patch.value.as_ref().filter(|_| is_merge(patch.operation)) {
            merge::merge(patch.operation, routes, value);
        }
    }
    let (on_hosts, on_routes) = (fitting(ApplyTo::VirtualHost), fitting(ApplyTo::HttpRoute));
    let hosts = std::mem::take(&mut routes.virtual_hosts);
    routes.virtual_hosts =
        hosts.into_iter().filter_map(|host| virtual_host(&on_hosts, &on_routes, host)).collect();
    for patch in on_hosts.iter().filter(|patch| patch.operation == Operation::Add) {
        // Envoy refuses all of them when two have one name.
        let new = decoded::<VirtualHost>(patch)
            .filter(|new| routes.virtual_hosts.iter().all(|known| known.name != new.name));
        routes.virtual_hosts.extend(new);
    }
}

/// `None` when it is removed.
fn virtual_host(on_hosts: &[&Patch], on_routes: &[&Patch], mut host: VirtualHost) -> Option<VirtualHost> {
    for patch in on_hosts {
        if !is_host(patch, &host) {
            continue;
        }
        match patch.operation {
            Operation::Remove => return None,
            Operation::Replace => host = decoded(patch).unwrap_or(host),
            operation if is_merge(operation) => {
                if let Some(value) = &patch.value {
                    merge::merge(operation, &mut host, value);
                }
            }
            _ => {}
        }
    }
    let own: Vec<&Patch> = on_routes.iter().copied().filter(|patch| is_host(patch, &host)).collect();
    if !own.is_empty() {
        let routes = std::mem::take(&mut host.routes);
        host.routes = routes.into_iter().filter_map(|route| changed(&own, route)).collect();
        own.iter().for_each(|patch| insert(patch, &mut host.routes));
    }
    Some(host)
}

/// `None` when it is removed.
fn changed(patches: &[&Patch], mut route: Route) -> Option<Route> {
    for patch in patches {
        let removes = patch.operation == Operation::Remove;
        if !removes && !is_merge(patch.operation) || !is_route(patch, &route) {
            continue;
        }
        if removes {
            return None;
        }
        if let Some(value) = &patch.value {
            merge::merge(patch.operation, &mut route, value);
        }
    }
    Some(route)
}

fn insert(patch: &Patch, routes: &mut Vec<Route>) {
    let is_named = wanted_route(patch).is_some();
    let fits = |route: &Route| is_route(patch, route);
    match patch.operation {
        Operation::Remove | Operation::Replace => {}
        // At the very top, if the named route is there at all.
        Operation::InsertFirst if is_named && !routes.iter().any(fits) => {}
        operation => {
            let end = routes.len();
            let fits: &dyn Fn(&Route) -> bool = &fits;
            list::edit(routes, operation, is_named.then_some(fits), end, || decoded(patch));
        }
    }
}

/// What the name of a gateway's route configuration is made of.
#[derive(Default)]
struct OfGateway<'a> {
    port: u16,
    port_name: &'a str,
    gateway: String,
}

impl<'a> OfGateway<'a> {
    /// `http.PORT` or `https.PORT.NAME.GATEWAY.NAMESPACE`.
    fn parse(name: &'a str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["http", port, ..] => Self { port: port.parse().unwrap_or_default(), ..Self::default() },
            ["https", port, port_name, gateway, namespace, ..] => Self {
                port: port.parse().unwrap_or_default(),
                port_name,
                gateway: format!("{namespace}/{gateway}"),
            },
            _ => Self::default(),
        }
    }
}

fn is_configuration(scope: Scope<'_>, context: PatchContext, patch: &Patch, name: &str) -> bool {
    let Some(matcher) = matching::on_routes(patch) else { return true };
    if !matcher.name.is_empty() && matcher.name != name {
        return false;
    }
    let port = u16::try_from(matcher.port_number).unwrap_or(u16::MAX);
    if context != PatchContext::Gateway {
        // `PORT`, or `inbound|PORT||`.
        let own = name.strip_prefix("inbound|").and_then(|rest| rest.split('|').next()).unwrap_or(name);
        return port == 0 || own.parse() == Ok(port);
    }
    let own = OfGateway::parse(name);
    (matcher.port_name.is_empty() || matcher.port_name == own.port_name)
        && (matcher.gateway.is_empty() || matcher.gateway == own.gateway)
        && (port == 0 || has_port(scope, own.port, port))
}

/// Whether a gateway's listener at `own` serves a port: by the services that
/// lead there, or as it is.
fn has_port(scope: Scope<'_>, own: u16, port: u16) -> bool {
    let ports = workload_ports(scope.snapshot, scope.proxy);
    if ports.values().any(|target| *target == own) { ports.get(&port) == Some(&own) } else { own == port }
}

fn is_host(patch: &Patch, host: &VirtualHost) -> bool {
    let wanted = matching::on_routes(patch).and_then(|matcher| matcher.vhost.as_ref());
    wanted.is_none_or(|wanted| {
        (wanted.name.is_empty() || wanted.name == host.name)
            && (wanted.domain_name.is_empty() || host.domains.contains(&wanted.domain_name))
    })
}

fn wanted_route(patch: &Patch) -> Option<&RouteMatch> {
    matching::on_routes(patch)?.vhost.as_ref()?.route.as_ref()
}

fn is_route(patch: &Patch, route: &Route) -> bool {
    let Some(wanted) = wanted_route(patch) else { return true };
    if !wanted.name.is_empty() && wanted.name != route.name {
        return false;
    }
    match (&route.action, wanted.action()) {
        (_, Wanted::Any) => true,
        (Some(Action::Route(_)), action) => action == Wanted::Route,
        (Some(Action::Redirect(_)), action) => action == Wanted::Redirect,
        (Some(Action::DirectResponse(_)), action) => action == Wanted::DirectResponse,
        _ => true,
    }
}
