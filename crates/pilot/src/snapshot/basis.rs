//! What a snapshot takes over from the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Kind, Problem, Store};
use mesh::MeshConfig;

use super::{Service, Snapshot, service};
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
    &[Kind::EndpointSlice, Kind::Endpoints, Kind::Pod, Kind::Secret, Kind::WorkloadEntry];

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

    /// Services; those that are as they were are the same ones.
    pub(super) fn services(&self, context: &service::Context<'_>) -> Arc<service::Made> {
        let Some(previous) = self.previous else { return Arc::new(service::Made::new(context)) };
        if !self.has_changed(OF_SERVICES) {
            return previous.made.clone();
        }
        let mut old: BTreeMap<_, Vec<&Arc<Service>>> = BTreeMap::new();
        for service in &previous.made.services {
            old.entry((&service.host, &service.namespace)).or_default().push(service);
        }
        let mut made = previous.made.next(context, self.kinds);
        for service in &mut made.services {
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

    /// What is wrong with objects in view of others.
    pub(super) fn problems(&self, make: impl FnOnce() -> Vec<Problem>) -> Vec<Problem> {
        match self.previous {
            Some(previous)
                if self
                    .kinds
                    .iter()
                    .all(|kind| matches!(kind, Kind::EndpointSlice | Kind::Endpoints | Kind::Pod)) =>
            {
                previous.problems.clone()
            }
            _ => make(),
        }
    }
}
