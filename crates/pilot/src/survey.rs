//! What objects by themselves say, without a look at what proxies get.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use config::kube::{EndpointSlice, Pod};
use config::{Key, Store};
use names::label;

use crate::finding::{Finding, Topic};
use crate::proxy::Proxy;
use crate::snapshot::endpoint::Health;
use crate::snapshot::{Registry, Snapshot};

/// Findings about the objects of a snapshot, and which workloads are not ready.
#[derive(Debug, Default)]
pub struct Survey {
    /// About objects.
    pub findings: Vec<Finding>,
    unready: HashSet<IpAddr>,
}

impl Survey {
    /// Looks at a snapshot and the objects that it was made from.
    #[must_use]
    pub fn new(store: &Store, snapshot: &Snapshot) -> Self {
        let mut findings: Vec<Finding> = snapshot.destination_rules.duplicates().collect();
        findings.extend(without_pod(store, &snapshot.domain));
        let own = snapshot.services.iter().filter(|service| service.registry == Registry::Kubernetes);
        let endpoints = own.flat_map(|service| service.endpoints.iter());
        let unready = endpoints.filter(|endpoint| endpoint.health == Health::Unhealthy);
        Self { findings, unready: unready.filter_map(|endpoint| endpoint.ip()).collect() }
    }

    /// What there is to say of a proxy's own workload.
    #[must_use]
    pub fn of_proxy(&self, proxy: &Proxy) -> Option<Finding> {
        let is_unready = proxy.ips.first().is_some_and(|ip| self.unready.contains(ip));
        is_unready.then(|| {
            let name = proxy.name();
            Finding {
                topic: Topic::NotReady,
                key: name.clone(),
                message: String::new(),
                proxy: name,
                object: None,
            }
        })
    }
}

/// Endpoints whose pods are not there, by service: nothing is known of their
/// labels, so that policies and subsets do not hold for them.
fn without_pod(store: &Store, domain: &str) -> Vec<Finding> {
    let mut by_host: BTreeMap<String, (String, Key)> = BTreeMap::new();
    for (object, slice) in store.all::<EndpointSlice>() {
        let Some(service) = object.meta.labels.get(label::SERVICE_NAME) else { continue };
        for endpoint in &slice.endpoints {
            let Some(target) = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod") else {
                continue;
            };
            let namespace =
                if target.namespace.is_empty() { &object.meta.namespace } else { &target.namespace };
            if store.get::<Pod>(namespace, &target.name).is_some() {
                continue;
            }
            let host = format!("{service}.{}.svc.{domain}", object.meta.namespace);
            let address = endpoint.addresses.first().cloned().unwrap_or_default();
            by_host.entry(host).or_insert_with(|| (address, object.key.clone()));
        }
    }
    let findings = by_host.into_iter().map(|(key, (message, object))| Finding {
        topic: Topic::NoPod,
        key,
        message,
        proxy: String::new(),
        object: Some(object),
    });
    findings.collect()
}

#[cfg(test)]
mod tests;
