//! Indexes of all objects, made once for all proxies and never changed.
//!
//! Each part is the index of one kind; none knows a proxy or Envoy.

pub mod authn;
pub mod destination_rule;
pub mod endpoint;
pub mod service;
pub mod virtual_service;
pub mod visibility;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::Pod;
use config::{Meta, Problem, Store};
use mesh::MeshConfig;
use names::Hostname;

use crate::settings::Settings;

pub use authn::MtlsMode;
pub use endpoint::Endpoint;
pub use service::{Port, Registry, Resolution, Service};

/// A pod with its metadata.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Metadata.
    pub meta: Meta,
    /// The pod.
    pub pod: Pod,
}

/// All objects, indexed.
#[derive(Debug)]
pub struct Snapshot {
    /// Mesh-wide settings.
    pub mesh: Arc<MeshConfig>,
    /// Settings of the control plane.
    pub settings: Settings,
    /// Suffix of service names, `cluster.local`.
    pub domain: String,
    /// Services, the oldest first.
    pub services: Vec<Arc<Service>>,
    by_host: BTreeMap<Hostname, Arc<Service>>,
    pods: BTreeMap<IpAddr, Workload>,
    /// DestinationRules.
    pub destination_rules: destination_rule::Index,
    /// VirtualServices for the mesh.
    pub virtual_services: virtual_service::Index,
    /// PeerAuthentications.
    pub authn: authn::Index,
    /// What is wrong with objects in view of others.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// Indexes the objects of a store.
    #[must_use]
    pub fn build(store: &Store, settings: &Settings) -> Self {
        let (mesh, cluster_id) = (settings.mesh.clone(), &settings.cluster_id);
        let domain = "cluster.local".to_owned();
        let pods = pods(store);
        let authn = authn::Index::build(store, &mesh.root_namespace);
        let context = endpoint::Context { store, pods: &pods, authn: &authn, cluster_id };
        let services = service::build(store, &mesh, &domain, &context);
        // Two services of one name cannot be; the map only finds them faster.
        let by_host: BTreeMap<_, _> =
            services.iter().map(|service| (service.host.clone(), service.clone())).collect();
        let destination_rules = destination_rule::Index::build(store, &mesh, &domain);
        let virtual_services = virtual_service::Index::build(store, &mesh, &domain);
        let mut snapshot = Self {
            mesh,
            settings: settings.clone(),
            domain,
            services,
            by_host,
            pods,
            destination_rules,
            virtual_services,
            authn,
            problems: Vec::new(),
        };
        snapshot.problems = virtual_service::dangling(store, &snapshot);
        snapshot
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.by_host.get(host)
    }

    /// The pod at that address.
    #[must_use]
    pub fn pod(&self, ip: IpAddr) -> Option<&Workload> {
        self.pods.get(&ip)
    }
}

/// Pods by address; those on the node's network share theirs and are left out.
fn pods(store: &Store) -> BTreeMap<IpAddr, Workload> {
    let mut pods = BTreeMap::new();
    for (object, pod) in store.all::<Pod>() {
        if pod.spec.host_network || pod.is_finished() {
            continue;
        }
        for ip in pod.addresses().filter_map(|ip| ip.parse().ok()) {
            pods.insert(ip, Workload { meta: object.meta.clone(), pod: pod.clone() });
        }
    }
    pods
}
