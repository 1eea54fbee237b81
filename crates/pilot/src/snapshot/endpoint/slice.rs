//! Endpoints of Kubernetes services: from EndpointSlices, or from Endpoints
//! where a service has no slice.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::{self, EndpointSlice, TargetRef};
use config::{Kind, Object, Spec, Store};
use names::label;

use super::{Endpoint, Endpoints, Health, Instance, Instances};
use crate::snapshot::authn;

/// What of a service decides on its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::snapshot) struct Traits {
    /// Whether it has persistent sessions, which draining endpoints go on with.
    pub(in crate::snapshot) has_sessions: bool,
    /// Whether it has addresses of two families, so that one endpoint stands for
    /// all addresses of a pod.
    pub(in crate::snapshot) is_dual_stack: bool,
}

/// The endpoints of one service, and what they were made from.
#[derive(Clone, Debug)]
struct Made {
    traits: Traits,
    sources: Vec<Arc<Object>>,
    endpoints: Arc<Endpoints>,
}

/// Endpoints by namespace and name of the service.
#[derive(Clone, Debug, Default)]
pub(in crate::snapshot) struct Slices(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Made>>);

impl Slices {
    /// Reads them; a service whose objects and workloads are those of `before`
    /// keeps its endpoints as they are.
    pub(in crate::snapshot) fn build(
        store: &Store,
        instances: &Instances,
        authn: &authn::Index,
        traits: impl Fn(&str, &str) -> Option<Traits>,
        before: Option<(&Self, &Instances)>,
    ) -> Self {
        let mut sources: BTreeMap<(&Arc<str>, &str), Vec<&Arc<Object>>> = BTreeMap::new();
        for object in store.shared(Kind::EndpointSlice) {
            let service = object.meta.labels.get(label::SERVICE_NAME).filter(|name| !name.is_empty());
            if let Some(service) = service {
                sources.entry((&object.key.namespace, service)).or_default().push(object);
            }
        }
        for object in store.shared(Kind::Endpoints) {
            sources.entry((&object.key.namespace, &object.key.name)).or_insert_with(|| vec![object]);
        }
        let mut all = Self::default();
        for ((namespace, name), sources) in sources {
            let Some(traits) = traits(namespace, name) else { continue };
            let known = before.and_then(|(before, old)| Some((before.0.get(namespace)?.get(name)?, old)));
            let known = known.filter(|(known, old)| {
                known.traits == traits
                    && known.sources.len() == sources.len()
                    && known.sources.iter().zip(&sources).all(|(old, new)| Arc::ptr_eq(old, new))
                    && have_same_workloads(namespace, &sources, old, instances)
            });
            let known = known.map(|(known, _)| known);
            let made = known.cloned().unwrap_or_else(|| {
                let mut maker = Maker::new(namespace, name, instances, authn, traits);
                sources.iter().for_each(|object| maker.add_object(object));
                Made {
                    traits,
                    sources: sources.into_iter().cloned().collect(),
                    endpoints: Arc::new(maker.made),
                }
            });
            all.0.entry(namespace.clone()).or_default().insert(name.into(), made);
        }
        all
    }

    /// Endpoints of a service.
    pub(in crate::snapshot) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Endpoints>> {
        Some(&self.0.get(namespace)?.get(name)?.endpoints).filter(|endpoints| !endpoints.is_empty())
    }
}

/// Whether the endpoints of slices are at the same workloads as before.
fn have_same_workloads(namespace: &str, sources: &[&Arc<Object>], old: &Instances, new: &Instances) -> bool {
    let is_same = |endpoint: &kube::Endpoint| match &endpoint.target_ref {
        Some(target) if target.kind == "Pod" => {
            let namespace = if target.namespace.is_empty() { namespace } else { &target.namespace };
            match (old.pod(namespace, &target.name), new.pod(namespace, &target.name)) {
                (Some((old, before)), Some((new, now))) => Arc::ptr_eq(old, new) && before == now,
                (None, None) => true,
                _ => false,
            }
        }
        _ => endpoint.addresses.iter().filter_map(|address| address.parse().ok()).all(|ip| {
            match (old.at(namespace, ip), new.at(namespace, ip)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            }
        }),
    };
    std::ptr::eq(old, new)
        || sources.iter().all(|object| match &object.spec {
            Spec::EndpointSlice(slice) => slice.endpoints.iter().all(is_same),
            Spec::Endpoints(endpoints) => {
                endpoints.as_slices().all(|slice| slice.endpoints.iter().all(is_same))
            }
            _ => true,
        })
}

struct Maker<'a> {
    namespace: &'a str,
    service: &'a str,
    instances: &'a Instances,
    authn: &'a authn::Index,
    traits: Traits,
    /// Workloads that are not known, by node and network.
    unknown: BTreeMap<(String, String), Arc<Instance>>,
    /// Addresses by port: two slices may hold one endpoint while it moves between them.
    seen: HashSet<(IpAddr, Box<str>)>,
    made: Endpoints,
}

impl<'a> Maker<'a> {
    fn new(
        namespace: &'a str,
        service: &'a str,
        instances: &'a Instances,
        authn: &'a authn::Index,
        traits: Traits,
    ) -> Self {
        let (unknown, seen, made) = (BTreeMap::new(), HashSet::new(), Endpoints::default());
        Self { namespace, service, instances, authn, traits, unknown, seen, made }
    }

    fn add_object(&mut self, object: &Object) {
        match &object.spec {
            // Names are for nobody to resolve.
            Spec::EndpointSlice(slice) if slice.address_type != "FQDN" => self.add_slice(slice),
            Spec::Endpoints(endpoints) => {
                endpoints.as_slices().for_each(|slice| self.add_slice(&slice));
            }
            _ => {}
        }
    }

    fn add_slice(&mut self, slice: &EndpointSlice) {
        slice.endpoints.iter().for_each(|endpoint| self.add(slice, endpoint));
    }

    fn add(&mut self, slice: &EndpointSlice, endpoint: &kube::Endpoint) {
        let health = self.health(endpoint);
        for address in &endpoint.addresses {
            // One that is no address makes Envoy refuse the endpoints of all clusters.
            let Ok(ip) = address.parse::<IpAddr>() else { continue };
            let Some((mut instance, all)) = self.instance(endpoint, ip) else { continue };
            // Kubernetes writes here what the pod says; without a pod it is all there is.
            let has_pod = endpoint.target_ref.as_ref().is_some_and(|target| target.kind == "Pod");
            if let Some(hostname) = endpoint.hostname.as_ref().filter(|name| !name.is_empty())
                && !has_pod
                && instance.dns_name.is_empty()
            {
                let dns_name = format!("{hostname}.{}", self.service);
                instance = Arc::new(Instance { dns_name, ..(*instance).clone() });
            }
            let mut more: Box<[Arc<str>]> = Box::default();
            if self.traits.is_dual_stack && all.len() > 1 {
                // The slice of the other family has the same pod.
                if ip.is_ipv6() {
                    continue;
                }
                more = all.iter().filter(|other| ***other != *address).cloned().collect();
            }
            let known = all.iter().find(|own| ***own == **address);
            let address: Arc<str> = known.cloned().unwrap_or_else(|| address.as_str().into());
            for port in &slice.ports {
                let Some(number) = port.port.filter(|number| *number > 0) else { continue };
                let name = port.name.as_deref().unwrap_or_default();
                if !self.seen.insert((ip, name.into())) {
                    continue;
                }
                let mut made = Endpoint::new(self.authn, &address, number, &instance);
                made.health = health;
                made.more_addresses.clone_from(&more);
                self.made.push(name, made);
            }
        }
    }

    /// One that does not say whether it ends goes on, as Kubernetes has it.
    fn health(&self, endpoint: &kube::Endpoint) -> Health {
        let conditions = endpoint.conditions;
        if conditions.ready.unwrap_or(true) {
            return Health::Healthy;
        }
        if conditions.terminating != Some(true) {
            return Health::Unhealthy;
        }
        let drains = self.traits.has_sessions && conditions.serving.unwrap_or(true);
        if drains { Health::Draining } else { Health::Terminating }
    }

    /// The workload at an address, with all addresses if it is a pod that the
    /// endpoint names. One that should be a pod which is not there yet is left
    /// out: what it accepts is not known.
    fn instance(&mut self, endpoint: &kube::Endpoint, ip: IpAddr) -> Option<(Arc<Instance>, &'a [Arc<str>])> {
        if let Some(TargetRef { kind, name, namespace }) = &endpoint.target_ref
            && kind == "Pod"
        {
            let namespace = if namespace.is_empty() { self.namespace } else { namespace };
            let (instance, addresses) = self.instances.pod(namespace, name)?;
            return Some((instance.clone(), addresses));
        }
        if let Some(instance) = self.instances.at(self.namespace, ip) {
            return Some((instance.clone(), &[]));
        }
        let node_name = endpoint.node_name.as_deref().unwrap_or_default();
        let made = self.instances.unknown(self.namespace, ip, node_name);
        let shared = self.unknown.entry((made.node_name.clone(), made.network.clone()));
        Some((shared.or_insert_with(|| Arc::new(made)).clone(), &[]))
    }
}
