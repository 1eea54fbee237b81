//! What a snapshot takes over from the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::{Kind, Problem, Store};
use mesh::MeshConfig;

use super::{Service, Snapshot, Workload, gateway, service};
use crate::class::Traits;

/// Kinds that services are made of.
pub(crate) const OF_SERVICES: &[Kind] = &[
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Endpoints,
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::PeerAuthentication,
    Kind::Gateway,
];
/// Kinds of which services change without anything being told of workloads'
/// labels or of destinations.
const ENDPOINTS_ONLY: &[Kind] =
    &[Kind::EndpointSlice, Kind::Endpoints, Kind::Pod, Kind::Secret, Kind::ConfigMap, Kind::WorkloadEntry];

/// The snapshot before, and what has changed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis<'a> {
    pub(super) previous: Option<&'a Snapshot>,
    pub(super) kinds: &'a BTreeSet<Kind>,
}

impl Basis<'_> {
    fn has_changed(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.kinds.contains(kind))
    }

    /// An index of those kinds.
    pub(super) fn keep<T>(
        &self,
        kinds: &[Kind],
        of: impl Fn(&Snapshot) -> &Arc<T>,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        match self.previous {
            Some(previous) if !self.has_changed(kinds) => of(previous).clone(),
            _ => Arc::new(make()),
        }
    }

    /// Pods, as far as they are where they were.
    pub(super) fn pods(&self) -> Option<&BTreeMap<IpAddr, Arc<Workload>>> {
        self.previous.filter(|_| !self.has_changed(&[Kind::Node])).map(|previous| &*previous.pods)
    }

    /// Services; those that are as they were are the same ones.
    pub(super) fn services(&self, context: &service::Context<'_>) -> Arc<service::Made> {
        let Some(previous) = self.previous else { return Arc::new(service::Made::new(context)) };
        if !self.has_changed(OF_SERVICES) {
            return previous.made.clone();
        }
        let mut made = previous.made.next(context, self.kinds);
        let before = &previous.made.services;
        let is_at = |list: &[Arc<Service>], index: usize, service: &Arc<Service>| {
            list.get(index).is_some_and(|other| Arc::ptr_eq(other, service))
        };
        // Most often nearly all are at their places, and the same.
        let mut old: BTreeMap<_, Vec<&Arc<Service>>> = BTreeMap::new();
        for (_, service) in
            before.iter().enumerate().filter(|(index, service)| !is_at(&made.services, *index, service))
        {
            old.entry((&service.host, &service.namespace)).or_default().push(service);
        }
        for (_, service) in
            made.services.iter_mut().enumerate().filter(|(index, service)| !is_at(before, *index, service))
        {
            let known = old.get(&(&service.host, &service.namespace)).into_iter().flatten();
            if let Some(known) = known.copied().find(|known| *known == service) {
                *service = known.clone();
            }
        }
        Arc::new(made)
    }

    /// By what objects tell proxies apart.
    pub(super) fn traits(&self, store: &Store, mesh: &MeshConfig, services: &[Arc<Service>]) -> Arc<Traits> {
        let Some(previous) = self.previous else { return Arc::new(Traits::new(store, mesh, services)) };
        let mut traits = if self.kinds.iter().all(|kind| ENDPOINTS_ONLY.contains(kind)) {
            Traits::clone(&previous.traits)
        } else {
            return Arc::new(Traits::new(store, mesh, services));
        };
        traits.headless(services);
        if traits == *previous.traits { previous.traits.clone() } else { Arc::new(traits) }
    }

    /// What is wrong with objects in view of others, but for AuthorizationPolicies:
    /// what workloads they select changes with endpoints.
    pub(super) fn problems(&self, make: impl FnOnce() -> Vec<Problem>) -> Vec<Problem> {
        let is_kept = |previous: &&Snapshot| {
            self.kinds.iter().all(|kind| match kind {
                Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => true,
                Kind::ConfigMap => !gateway::names_config_maps(previous),
                _ => false,
            })
        };
        let Some(previous) = self.previous.filter(is_kept) else { return make() };
        let is_of_policy = |problem: &&Problem| {
            problem.object.as_ref().is_some_and(|object| object.kind == Kind::AuthorizationPolicy)
        };
        previous.problems.iter().filter(|problem| !is_of_policy(problem)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;
    use crate::settings::Settings;

    const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: ns, labels: {istio: in}}
spec: {}
status: {podIP: 10.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: ns}
spec:
  selector: {istio: in}
  servers:
  - port: {number: 443, name: a, protocol: HTTPS}
    hosts: [a.com]
    tls: {mode: MUTUAL, credentialName: 'builtin://', caCertCredentialName: 'configmap://ns/roots'}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: ns}
spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 9000}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: ns}
spec: {action: CUSTOM, provider: {name: p}, rules: [{}]}
";

    #[test]
    fn what_is_wrong_follows_all_that_it_depends_on() {
        let mesh = "extensionProviders: [{name: p, envoyExtAuthzHttp: {service: p.com, port: 80}}]";
        let mesh = MeshConfig::from_yaml(mesh).unwrap();
        let mut store = crate::testing::store(OBJECTS);
        let mut snapshot = Snapshot::build(&store, &Settings::new(Arc::new(mesh), "Kubernetes"));
        let mut after = |text: &str| -> Vec<String> {
            let objects = yaml::read("more.yaml", text).objects;
            let kinds = objects.iter().map(|object| object.key.kind).collect();
            for object in objects {
                store.apply(Arc::new(object));
            }
            snapshot = snapshot.next(&store, &kinds);
            let mut all: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
            let built = Snapshot::build(&store, &snapshot.settings);
            let mut wanted: Vec<String> = built.problems.iter().map(ToString::to_string).collect();
            all.sort();
            wanted.sort();
            assert_eq!(all, wanted, "{text}");
            all
        };
        let all = after("");
        assert!(all.len() == 1 && all[0].contains("no ConfigMap ns/roots"), "{all:?}");
        let all =
            after("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: roots, namespace: ns}\ndata: {}\n");
        assert!(all.len() == 1 && !all[0].contains("no ConfigMap"), "{all:?}");
        let all = after(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {name: db, namespace: ns, labels: {security.istio.io/tlsMode: istio}}\n\
             spec: {}\nstatus: {podIP: 10.0.0.3}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {name: db, namespace: ns, labels: {kubernetes.io/service-name: db}}\n\
             addressType: IPv4\nports: [{name: tcp, port: 9000}]\n\
             endpoints: [{addresses: [10.0.0.3], targetRef: {kind: Pod, name: db, namespace: ns}}]\n",
        );
        assert!(all.iter().any(|problem| problem.contains("db.ns.svc.cluster.local:9000")), "{all:?}");
    }
}
