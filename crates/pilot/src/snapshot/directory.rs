//! Services by name and by namespace: look-ups that must not scan all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use names::Hostname;

use super::service::{Registry, Service};

/// Services of a snapshot, found fast.
#[derive(Debug, Default)]
pub struct Directory {
    by_host: BTreeMap<Hostname, Vec<Arc<Service>>>,
    by_namespace: BTreeMap<String, Vec<Arc<Service>>>,
    has_namesakes: bool,
}

impl Directory {
    /// Indexes services, the oldest first.
    #[must_use]
    pub fn new(services: &[Arc<Service>]) -> Self {
        let mut directory = Self::default();
        for service in services {
            let namesakes = directory.by_host.entry(service.host.clone()).or_default();
            directory.has_namesakes |= !namesakes.is_empty();
            namesakes.push(service.clone());
            let of_namespace = directory.by_namespace.entry(service.namespace.clone()).or_default();
            of_namespace.push(service.clone());
        }
        directory
    }

    /// The service of that name; of several the one of Kubernetes, then the oldest.
    #[must_use]
    pub fn find(&self, host: &Hostname) -> Option<&Arc<Service>> {
        best(self.named(host).iter())
    }

    /// All services of that name, the oldest first: ServiceEntries of several
    /// namespaces may bear the same.
    #[must_use]
    pub fn named(&self, host: &Hostname) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// Whether some name is borne by several services.
    #[must_use]
    pub fn has_namesakes(&self) -> bool {
        self.has_namesakes
    }

    /// How many namespaces have services.
    #[must_use]
    pub fn namespaces(&self) -> usize {
        self.by_namespace.len()
    }

    /// The services of a namespace, the oldest first.
    #[must_use]
    pub fn of_namespace(&self, namespace: &str) -> &[Arc<Service>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// What a client of a namespace means by a name that its Sidecar does not
    /// list: a service of its own namespace, else the best that it sees.
    #[must_use]
    pub fn find_for(&self, host: &Hostname, client: &str) -> Option<&Arc<Service>> {
        let named = self.named(host);
        named
            .iter()
            .find(|service| service.namespace == client)
            .or_else(|| best(named.iter().filter(|service| service.visibility.includes(client))))
    }
}

/// The first of Kubernetes, else the first.
fn best<'a>(mut services: impl Iterator<Item = &'a Arc<Service>> + Clone) -> Option<&'a Arc<Service>> {
    let of_kubernetes = services.clone().find(|service| service.registry == Registry::Kubernetes);
    of_kubernetes.or_else(|| services.next())
}
