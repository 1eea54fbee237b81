//! Writes Envoy's messages for one proxy.

mod cluster;
mod endpoint;
mod http;
mod listener;
mod message;
mod route;
mod tls;

use names::TypeUrl;
use xds::Resource;
use xds::session::Wanted;

use crate::proxy::Proxy;
use crate::scope::Scope;
use crate::snapshot::Snapshot;

/// The resources of a type that a proxy should have, in a fixed order.
///
/// Of endpoints and routes those that are `wanted` by name; an endpoint
/// assignment exists for every name, if need be an empty one, since Envoy waits
/// for it.
#[must_use]
pub fn generate(snapshot: &Snapshot, proxy: &Proxy, type_url: &TypeUrl, wanted: &Wanted) -> Vec<Resource> {
    let scope = Scope::new(snapshot, proxy);
    let is_wanted = |name: &str| match wanted {
        Wanted::All => true,
        Wanted::Names(names) => names.contains(name),
    };
    match type_url {
        TypeUrl::Cluster => cluster::clusters(scope)
            .iter()
            .filter(|cluster| is_wanted(&cluster.name))
            .map(|cluster| {
                let by_eds = cluster.eds_cluster_config.is_some();
                Resource::encode(cluster.name.as_str(), cluster).awaits_endpoints(by_eds)
            })
            .collect(),
        TypeUrl::Listener => listener::listeners(scope)
            .iter()
            .filter(|listener| is_wanted(&listener.name))
            .map(|listener| Resource::encode(listener.name.as_str(), listener))
            .collect(),
        TypeUrl::Route => route::outbound(scope, &is_wanted)
            .iter()
            .map(|route| Resource::encode(route.name.as_str(), route))
            .collect(),
        TypeUrl::Endpoint => match wanted {
            Wanted::All => Vec::new(),
            Wanted::Names(names) => names
                .iter()
                .map(|name| Resource::encode(name.clone(), &endpoint::assignment(scope, name)))
                .collect(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
