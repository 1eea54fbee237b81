//! Hosts of services as objects name them, and from where they are seen.

use std::collections::HashMap;

use proto::istio::networking::v1alpha3 as api;

use crate::kube::Service;
use crate::{Kind, Resource, World};

/// Where an object of these namespaces is in force: everywhere.
pub(crate) const EVERYWHERE: &str = "*";

/// Host names end so in a cluster of default settings.
const DOMAIN: &str = "svc.cluster.local";

/// A service that a host is of.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Numbers of its ports.
    pub(crate) ports: Vec<u32>,
    /// Labels of its pods or workloads; `None` when it does not select them.
    pub(crate) selector: Option<Vec<(Box<str>, Box<str>)>>,
    /// The namespace of its pods or workloads.
    pub(crate) namespace: Box<str>,
    /// Whether it is one of Kubernetes.
    pub(crate) is_kubernetes: bool,
    /// Labels of workloads that it lists itself.
    pub(crate) workloads: Vec<crate::Labels>,
}

/// All hosts, by the namespace that sees them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    services: Vec<Found>,
    /// By host, then by namespace; `*` for all.
    hosts: HashMap<Box<str>, Vec<(Box<str>, usize)>>,
    /// By what wildcards end in.
    wildcards: HashMap<Box<str>, Vec<(Box<str>, usize)>>,
}

/// A host in full: a name without a dot is a service of the namespace.
pub(crate) fn fqdn(namespace: &str, host: &str) -> String {
    if host.starts_with('*') || host.contains('.') {
        host.to_owned()
    } else {
        format!("{host}.{namespace}.{DOMAIN}")
    }
}

/// The namespace and name of the service of Kubernetes that a full name is of,
/// in whatever domain the cluster is.
pub(crate) fn service_of(host: &str) -> Option<(&str, &str)> {
    let (service, domain) = host.split_once(".svc.")?;
    let (name, namespace) = service.rsplit_once('.')?;
    (!name.is_empty() && !namespace.is_empty() && !domain.is_empty()).then_some((namespace, name))
}

/// Namespaces that an object of `own` is for.
pub(crate) fn scopes<'a>(own: &'a str, export_to: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = export_to.map(|name| if name == "." { own } else { name }).collect();
    if all.is_empty() || all.contains(&EVERYWHERE) {
        return vec![EVERYWHERE];
    }
    all.sort_unstable();
    all.dedup();
    all
}

impl Hosts {
    pub(crate) fn new(world: &World) -> Self {
        let mut hosts = Self::default();
        for (one, entry) in world.all::<api::ServiceEntry>(Kind::ServiceEntry) {
            hosts.entry(one, &entry);
        }
        for (one, service) in world.services() {
            hosts.service(one, service);
        }
        hosts
    }

    fn entry(&mut self, one: &Resource, entry: &api::ServiceEntry) {
        let selector = entry.workload_selector.as_ref();
        let at = self.services.len();
        self.services.push(Found {
            ports: entry.ports.iter().map(|port| port.number).collect(),
            selector: selector.map(|selector| owned(crate::labels::pairs(&selector.labels))),
            namespace: one.namespace.clone(),
            is_kubernetes: false,
            workloads: entry.endpoints.iter().map(|endpoint| (&endpoint.labels).into()).collect(),
        });
        for scope in scopes(&one.namespace, entry.export_to.iter().map(String::as_str)) {
            for host in &entry.hosts {
                self.add(&fqdn(&one.namespace, host), scope, at);
            }
        }
    }

    fn service(&mut self, one: &Resource, service: &Service) {
        let at = self.services.len();
        self.services.push(Found {
            ports: service.ports.iter().filter_map(|port| u32::try_from(port.port).ok()).collect(),
            selector: (!service.selector.is_empty()).then(|| owned(service.selector.iter())),
            namespace: one.namespace.clone(),
            is_kubernetes: true,
            workloads: Vec::new(),
        });
        let exported = one.annotations.get("networking.istio.io/exportTo").unwrap_or_default();
        let names = exported.split(',').map(str::trim).filter(|name| !name.is_empty());
        for scope in scopes(&one.namespace, names) {
            self.add(&fqdn(&one.namespace, &one.name), scope, at);
        }
    }

    fn add(&mut self, host: &str, scope: &str, at: usize) {
        let (map, key) = match host.strip_prefix('*') {
            Some(end) => (&mut self.wildcards, end),
            None => (&mut self.hosts, host),
        };
        let list = map.entry(key.into()).or_default();
        // Of the same host the last one counts.
        list.retain(|(known, _)| **known != *scope);
        list.push((scope.into(), at));
    }

    /// The service that an object of a namespace means by a host, if some
    /// namespace that the object is for sees it.
    pub(crate) fn find(&self, namespace: &str, export_to: &[String], host: &str) -> Option<&Found> {
        let mut from = scopes(namespace, export_to.iter().map(String::as_str));
        if from == [EVERYWHERE] {
            from = vec![namespace];
        }
        let seen = |list: Option<&Vec<(Box<str>, usize)>>, from: &[&str]| {
            let list = list?;
            let everywhere = list.iter().find(|(scope, _)| **scope == *EVERYWHERE);
            let here = || list.iter().find(|(scope, _)| from.contains(&&**scope));
            everywhere.or_else(here).map(|(_, at)| &self.services[*at])
        };
        let full = fqdn(namespace, host);
        let exact = || seen(self.hosts.get(&*full), &from);
        // The domain of the cluster is not known here.
        let elsewhere = || {
            let (namespace, name) = service_of(&full)?;
            seen(self.hosts.get(&*format!("{name}.{namespace}.{DOMAIN}")), &from)
        };
        let end = full.strip_prefix('*').unwrap_or(&full);
        let wildcard = || {
            let starts = end.char_indices().map(|(at, _)| at).chain([end.len()]);
            starts.into_iter().find_map(|at| seen(self.wildcards.get(&end[at..]), &[namespace]))
        };
        exact().or_else(elsewhere).or_else(wildcard)
    }
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(Box<str>, Box<str>)> {
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_read_in_any_domain() {
        assert_eq!(service_of("a.b.svc.cluster.local"), Some(("b", "a")));
        assert_eq!(service_of("a.b.svc.example.com"), Some(("b", "a")));
        assert_eq!(service_of("a.example.com"), None);
        assert_eq!(service_of(".svc."), None);
        assert_eq!(fqdn("n", "a"), "a.n.svc.cluster.local");
        assert_eq!(fqdn("n", "a.b"), "a.b");
    }

    #[test]
    fn everywhere_wins_over_single_namespaces() {
        assert_eq!(scopes("a", [".", "b", "b"].into_iter()), ["a", "b"]);
        assert_eq!(scopes("a", ["b", "*"].into_iter()), ["*"]);
        assert_eq!(scopes("a", [].into_iter()), ["*"]);
    }
}
