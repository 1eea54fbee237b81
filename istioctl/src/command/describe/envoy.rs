//! What the Envoy of a pod knows of Services: the objects that it is configured by.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::dump::view::{
    Cluster, HttpConnectionManager, Listener, Metadata, RouteConfiguration, VirtualHost,
};
use crate::dump::{ConfigDump, Error, State};
use crate::json::Text;
use crate::proxies::objects::meta;

const INBOUND: &str = "virtualInbound";
const RBAC: &str = "envoy.filters.http.rbac";
const HTTP: &str = "envoy.filters.network.http_connection_manager";

/// Name and namespace of the object of a kind that something was made of.
fn origin(metadata: Option<&Metadata<'_>>, kind: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Istio {
        #[serde(default)]
        config: String,
    }
    let (_, raw) = metadata?.filter_metadata.iter().find(|(name, _)| &***name == "istio")?;
    let istio: Istio = serde_json::from_str(raw.get()).ok()?;
    let parts: Vec<&str> = istio.config.split('/').collect();
    match parts[..] {
        ["", "apis", group, _, "namespaces", namespace, of, name]
            if of == kind && matches!(group, "networking" | "networking.istio.io") =>
        {
            Some((name.to_owned(), namespace.to_owned()))
        }
        _ => None,
    }
}

/// Whether a host is that of a Service, in a cluster of any domain.
fn is_host(host: &str, service: &Value) -> bool {
    let parts: Vec<&str> = host.splitn(4, '.').collect();
    matches!(parts[..], [name, namespace, "svc", _] if name == meta(service, "name") && namespace == meta(service, "namespace"))
}

/// Whether a cluster is one of a Service's port.
fn is_cluster(name: &str, service: &Value, port: i64) -> bool {
    let parts: Vec<&str> = name.split('|').collect();
    matches!(parts[..], ["outbound", of, _, host] if of == port.to_string() && is_host(host, service))
}

/// Name and namespace of the DestinationRule of a Service's port.
pub(super) fn destination_rule(
    dump: &ConfigDump<'_>,
    service: &Value,
    port: i64,
) -> Result<Option<(String, String)>, Error> {
    for resource in dump.clusters()?.into_iter().filter(|one| one.state == State::Active) {
        let cluster: Cluster<'_> = resource.read()?;
        if is_cluster(&cluster.name, service, port)
            && let Some(found) = origin(cluster.metadata.as_ref(), "destination-rule")
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Name and namespace of the VirtualService of a Service's port.
pub(super) fn virtual_service(
    dump: &ConfigDump<'_>,
    service: &Value,
    port: i64,
) -> Result<Option<(String, String)>, Error> {
    for resource in dump.routes()?.into_iter().filter(|one| one.state == State::Active) {
        let routes: RouteConfiguration<'_> = resource.read()?;
        let is_of_gateway = routes.name.starts_with("http.") || routes.name.starts_with("https.");
        if *routes.name != port.to_string() && !is_of_gateway {
            continue;
        }
        for host in &routes.virtual_hosts {
            if let Some(found) = of_host(host, service, port) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn of_host(host: &VirtualHost<'_>, service: &Value, port: i64) -> Option<(String, String)> {
    let is_own = host.domains.iter().any(|domain| is_host(domain, service));
    let goes_there = |route: &crate::dump::view::Route<'_>| {
        route.route.as_ref().is_some_and(|action| {
            let weighted =
                action.weighted_clusters.iter().flat_map(|all| &all.clusters).map(|one| &*one.name);
            action.cluster.as_deref().into_iter().chain(weighted).any(|name| is_cluster(name, service, port))
        })
    };
    let mut routes = host.routes.iter().filter(|route| is_own || goes_there(route));
    routes.find_map(|route| origin(route.metadata.as_ref(), "virtual-service"))
}

/// The policies that requests to a port of the pod meet, as Envoy names them.
pub(super) fn policies(dump: &ConfigDump<'_>, port: Option<i64>) -> Result<Vec<String>, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Rbac<'a> {
        #[serde(borrow)]
        rules: Rules<'a>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Rules<'a> {
        #[serde(borrow)]
        policies: std::collections::BTreeMap<Text<'a>, IgnoredAny>,
    }
    let part = |source| Error::Part { what: "a filter", source };
    let mut found = Vec::new();
    for resource in dump.listeners()? {
        let listener: Listener<'_> = resource.read()?;
        if &*listener.name != INBOUND {
            continue;
        }
        let of_port = |number: Option<u32>| number.map(i64::from) == port;
        let number = |chain: &crate::dump::view::FilterChain<'_>| {
            chain.filter_chain_match.as_ref().and_then(|one| one.destination_port)
        };
        let has_own =
            listener.filter_chains.iter().any(|chain| number(chain).is_some() && of_port(number(chain)));
        // A port that is no port of a Service is served by what is for all.
        let chains = listener.filter_chains.iter().filter(|chain| match number(chain) {
            None => !has_own,
            number => of_port(number),
        });
        for filter in chains.flat_map(|chain| &chain.filters).filter(|filter| &*filter.name == HTTP) {
            let manager: HttpConnectionManager<'_> = filter.read().map_err(part)?;
            for filter in manager.http_filters.iter().filter(|filter| &*filter.name == RBAC) {
                let rbac: Rbac<'_> = filter.read().map_err(part)?;
                found.extend(rbac.rules.policies.keys().map(ToString::to_string));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
