//! Writes Envoy's messages for one proxy.

mod cluster;
mod endpoint;
mod extension;
mod filter;
mod gateway;
mod hash;
mod http;
mod listener;
mod message;
mod name_table;
mod proxyless;
mod route;
mod secret;
mod tls;

use names::TypeUrl;
use prost::Message as _;
use xds::Resource;
use xds::session::Wanted;

pub(crate) use endpoint::own::CLUSTER as OWN_CLUSTER;
pub use extension::extensions;
pub(crate) use filter::access_log::Loggers;
pub(crate) use filter::stats;
pub use proxyless::NoTls;
pub(crate) use proxyless::{SERVER, without_tls};
pub use secret::{Refusal, secrets};

use crate::finding::{Finding, Notes};
use crate::patch;
use crate::proxy::{Proxy, ProxyKind};
use crate::scope::{Scope, View};
use crate::snapshot::Snapshot;

/// The resources of a type that a proxy should have, in a fixed order.
///
/// Of endpoints and routes those that are `wanted` by name; an endpoint
/// assignment exists for every name, if need be an empty one, since Envoy waits
/// for it.
#[must_use]
pub fn generate(snapshot: &Snapshot, proxy: &Proxy, type_url: &TypeUrl, wanted: &Wanted) -> Vec<Resource> {
    let view = View::new(snapshot, proxy);
    of_view(snapshot, proxy, &view, type_url, wanted, &[Side::Shared, Side::Own]).resources
}

/// Two parts of what a proxy has of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// For what leaves the workload, and all of a gateway: the same for all
    /// proxies of a [`crate::class::Class`].
    Shared,
    /// For what comes to the workload: the proxy's own.
    Own,
}

/// Resources, and what was found while they were made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// In their order.
    pub(crate) resources: Vec<Resource>,
    /// For those who want to know.
    pub(crate) findings: Vec<Finding>,
}

/// Those of some sides, one after the other, of a proxy that sees this.
pub(crate) fn of_view(
    snapshot: &Snapshot,
    proxy: &Proxy,
    view: &View,
    type_url: &TypeUrl,
    wanted: &Wanted,
    sides: &[Side],
) -> Made {
    let notes = Notes::default();
    let scope = Scope::new(snapshot, proxy, view).noting(&notes);
    let resources = of_scope(scope, type_url, wanted, sides);
    Made { resources, findings: notes.take(&proxy.name()) }
}

fn of_scope(scope: Scope<'_>, type_url: &TypeUrl, wanted: &Wanted, sides: &[Side]) -> Vec<Resource> {
    let Scope { snapshot, proxy, .. } = scope;
    let is_wanted = |name: &str| match wanted {
        Wanted::All => true,
        Wanted::Names(names) => names.contains(name),
    };
    if proxy.is_proxyless {
        return proxyless(scope, type_url, wanted);
    }
    match type_url {
        TypeUrl::Cluster => sides
            .iter()
            .flat_map(|side| patch::clusters(scope, *side, cluster::side(scope, *side)))
            .collect::<Vec<_>>()
            .iter()
            .filter(|cluster| is_wanted(&cluster.name))
            .map(|cluster| {
                let by_eds = cluster.eds_cluster_config.is_some();
                Resource::encode(cluster.name.as_str(), cluster).awaits_endpoints(by_eds)
            })
            .collect(),
        TypeUrl::Listener => sides
            .iter()
            .flat_map(|side| {
                let listeners = match (proxy.kind, side) {
                    (ProxyKind::Sidecar, side) => listener::side(scope, *side),
                    (ProxyKind::Router, Side::Shared) => listener::gateway(scope),
                    (ProxyKind::Router, Side::Own) => Vec::new(),
                };
                patch::listeners(scope, *side, listeners)
            })
            .collect::<Vec<_>>()
            .iter()
            .filter(|listener| is_wanted(&listener.name))
            .map(|listener| Resource::encode(listener.name.as_str(), listener))
            .collect(),
        TypeUrl::Route => match proxy.kind {
            ProxyKind::Sidecar => {
                let all = route::outbound(scope, wanted).into_iter();
                all.map(|routes| {
                    if patch::has_routes(scope) {
                        let routes = patch::routes(scope, routes.message());
                        return Resource::encode(routes.name.as_str(), &routes);
                    }
                    Resource::from_bytes(routes.name.as_str(), routes.encode_to_vec().into())
                })
                .collect()
            }
            ProxyKind::Router => route::gateway(scope, &is_wanted)
                .into_iter()
                .map(|routes| patch::routes(scope, routes))
                .map(|routes| Resource::encode(routes.name.as_str(), &routes))
                .collect(),
        },
        // Credentials only where the caller has proven who asks: see `extensions`.
        TypeUrl::Extension => extensions(snapshot, proxy, &[], wanted),
        TypeUrl::Endpoint => endpoints(scope, wanted),
        // All names are one resource, which has none itself.
        TypeUrl::NameTable => {
            vec![Resource::from_bytes("", name_table::name_table(scope).encode_to_vec().into())]
        }
        _ => Vec::new(),
    }
}

/// Whether a proxy has a cluster of that name whose endpoints come by EDS.
pub(crate) fn has_endpoints(snapshot: &Snapshot, proxy: &Proxy, view: &View, cluster: &str) -> bool {
    endpoint::exists(Scope::new(snapshot, proxy, view), cluster)
}

fn endpoints(scope: Scope<'_>, wanted: &Wanted) -> Vec<Resource> {
    match wanted {
        Wanted::All => Vec::new(),
        Wanted::Names(names) => names
            .iter()
            .map(|name| Resource::encode(name.clone(), &endpoint::assignment(scope, name)))
            .collect(),
    }
}

/// The same for an application that speaks xDS itself: by name only.
fn proxyless(scope: Scope<'_>, type_url: &TypeUrl, wanted: &Wanted) -> Vec<Resource> {
    let Wanted::Names(names) = wanted else { return Vec::new() };
    let names = names.iter().map(|name| &**name);
    match type_url {
        TypeUrl::Listener => proxyless::listeners(scope, names)
            .iter()
            .map(|listener| Resource::encode(listener.name.as_str(), listener))
            .collect(),
        TypeUrl::Route => proxyless::routes(scope, names)
            .iter()
            .map(|route| Resource::encode(route.name.as_str(), route))
            .collect(),
        TypeUrl::Cluster => proxyless::clusters(scope, names)
            .iter()
            .map(|cluster| Resource::encode(cluster.name.as_str(), cluster).awaits_endpoints(true))
            .collect(),
        TypeUrl::Endpoint => endpoints(scope, wanted),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod switches_tests;
#[cfg(test)]
mod tests;
