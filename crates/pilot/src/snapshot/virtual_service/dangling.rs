//! Warnings for names that lead nowhere: what depends on them does not work.

use config::{Key, Object, Position, Problem, Severity, Store};
use names::Hostname;
use proto::istio::networking::v1alpha3::{Delegate, Destination, Gateway, VirtualService};

use super::{MESH_GATEWAY, delegate, resolve};
use crate::snapshot::Snapshot;

/// Warnings for gateways, destinations and delegates that do not exist.
pub(in crate::snapshot) fn dangling(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    let found = store.all::<VirtualService>();
    found.flat_map(|(object, spec)| dangling_in(store, snapshot, object, spec)).collect()
}

/// The same for one VirtualService, which need not be in the store.
pub(in crate::snapshot) fn dangling_in(
    store: &Store,
    snapshot: &Snapshot,
    object: &Object,
    spec: &VirtualService,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let namespace = &object.meta.namespace;
    let mut add = |field: String, message: Option<String>| {
        problems.extend(message.map(|message| warning(&object.key, &object.position, field, message)));
    };
    for (index, name) in spec.gateways.iter().enumerate().filter(|(_, name)| *name != MESH_GATEWAY) {
        let id = resolve::gateway(name, namespace);
        let is_known = id.split_once('/').is_some_and(|(of, name)| store.get::<Gateway>(of, name).is_some());
        let message = || format!("there is no Gateway {id}: the VirtualService has no effect there");
        add(format!("spec.gateways[{index}]"), (!is_known).then(message));
    }
    for (number, rule) in spec.http.iter().enumerate() {
        let at = format!("spec.http[{number}]");
        for (index, target) in rule.route.iter().enumerate() {
            let field = format!("{at}.route[{index}].destination");
            add(
                field,
                missing(snapshot, namespace, target.destination.as_ref(), "requests on this route fail"),
            );
        }
        let lost = "copies of requests are lost";
        add(format!("{at}.mirror"), missing(snapshot, namespace, rule.mirror.as_ref(), lost));
        for (index, mirror) in rule.mirrors.iter().enumerate() {
            let field = format!("{at}.mirrors[{index}].destination");
            add(field, missing(snapshot, namespace, mirror.destination.as_ref(), lost));
        }
        // A delegate that delegates has no effect, which its own check says.
        if let Some(delegate) = rule.delegate.as_ref().filter(|_| !spec.hosts.is_empty()) {
            add(format!("{at}.delegate"), lost_delegate(store, snapshot, namespace, rule, delegate));
        }
    }
    let bytes =
        spec.tcp.iter().map(|rule| &rule.route).enumerate().map(|(index, route)| ("tcp", index, route));
    let tls = spec.tls.iter().map(|rule| &rule.route).enumerate().map(|(index, route)| ("tls", index, route));
    for (kind, number, route) in bytes.chain(tls) {
        for (index, target) in route.iter().enumerate() {
            let field = format!("spec.{kind}[{number}].route[{index}].destination");
            let effect = "connections on this route fail";
            add(field, missing(snapshot, namespace, target.destination.as_ref(), effect));
        }
    }
    problems
}

/// What is wrong with a destination.
fn missing(
    snapshot: &Snapshot,
    namespace: &str,
    destination: Option<&Destination>,
    effect: &str,
) -> Option<String> {
    let destination = destination?;
    let host = Hostname::resolve(&destination.host, namespace, &snapshot.domain);
    let Some(service) = snapshot.service(&host) else {
        let is_alias = snapshot.services.iter().any(|service| service.aliases.contains(&host));
        return (!is_alias).then(|| format!("there is no service {host}: {effect}"));
    };
    let subset = &destination.subset;
    let rule = snapshot.destination_rules.find(namespace, &host, &service.namespace);
    let is_known =
        subset.is_empty() || rule.is_some_and(|rule| rule.subsets.iter().any(|known| known.name == *subset));
    (!is_known).then(|| format!("no DestinationRule defines a subset {subset:?} of {host}: {effect}"))
}

/// What is wrong with a delegate.
fn lost_delegate(
    store: &Store,
    snapshot: &Snapshot,
    namespace: &str,
    root: &proto::istio::networking::v1alpha3::HttpRoute,
    delegate: &Delegate,
) -> Option<String> {
    let own = delegate::namespace_of(delegate, namespace);
    let name = format!("{own}/{}", delegate.name);
    match delegate::find(store, &snapshot.mesh, namespace, delegate) {
        Ok(child) => {
            let mut rules = child.http.iter().enumerate();
            let (index, _) = rules.find(|(_, rule)| delegate::merge(root, (*rule).clone()).is_none())?;
            Some(format!(
                "http[{index}] of VirtualService {name} matches requests that this rule does not: it is left out"
            ))
        }
        Err(delegate::Problem::Missing) => {
            Some(format!("there is no VirtualService {name}: the rule has no effect"))
        }
        Err(delegate::Problem::HasHosts) => Some(format!(
            "VirtualService {name} has hosts, so none can delegate to it: the rule has no effect"
        )),
        Err(delegate::Problem::NotExported) => {
            Some(format!("VirtualService {name} is not exported to {namespace}: the rule has no effect"))
        }
    }
}

fn warning(object: &Key, position: &Position, field: String, message: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: Some(object.clone()),
        position: position.clone(),
        field,
        message,
    }
}
