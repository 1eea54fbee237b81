//! Indexes of all objects, made once for all proxies and never changed.
//!
//! Each part is the index of one kind; none knows a proxy or Envoy.

mod asked;
pub(crate) mod attach;
pub mod authn;
pub mod authz;
pub(crate) mod basis;
pub mod destination_rule;
pub mod directory;
pub mod endpoint;
pub mod envoy_filter;
pub mod gateway;
pub(crate) mod grpc_stats;
pub mod jwt;
pub mod network;
pub mod secret;
pub mod service;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod visibility;
pub mod wasm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use config::kube::Pod;
use config::{Kind, Meta, Object, Problem, SpecKind, Store};
use mesh::MeshConfig;
use names::Hostname;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use self::basis::Basis;
use crate::class::Traits;
use crate::generate::{Loggers, stats};
use crate::memo::Memo;
use crate::rbac;
use crate::settings::{KeySets, Settings};

pub use authn::MtlsMode;
pub use endpoint::{Endpoint, Endpoints};
pub use service::{Port, Registry, Resolution, Service};

/// A pod with its metadata.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Metadata.
    pub meta: Meta,
    /// The pod.
    pub pod: Pod,
    /// Where it runs: by its own label, else by its node's.
    pub locality: endpoint::Locality,
    /// What it was made from.
    source: Arc<Object>,
}

/// All objects, indexed.
#[derive(Debug)]
pub struct Snapshot {
    /// Mesh-wide settings.
    pub mesh: Arc<MeshConfig>,
    /// Whether those name the filter `grpc_stats`: the format of a log may show what it leaves.
    pub(crate) mesh_names_grpc_stats: bool,
    /// Settings of the control plane.
    pub settings: Settings,
    /// Suffix of service names, `cluster.local`.
    pub domain: String,
    /// Services, the oldest first.
    pub services: Vec<Arc<Service>>,
    made: Arc<service::Made>,
    /// Services by name and namespace.
    pub directory: Arc<directory::Directory>,
    /// Networks that the mesh spans.
    pub networks: Arc<network::Networks>,
    pods: Arc<BTreeMap<IpAddr, Arc<Workload>>>,
    /// By what its objects tell proxies apart.
    pub(crate) traits: Arc<Traits>,
    /// DestinationRules.
    pub destination_rules: Arc<destination_rule::Index>,
    /// VirtualServices for the mesh.
    pub virtual_services: Arc<virtual_service::Index>,
    /// Gateways.
    pub gateways: Arc<gateway::Index>,
    /// Credentials of TLS.
    pub secrets: Arc<secret::Index>,
    /// PeerAuthentications.
    pub authn: Arc<authn::Index>,
    /// AuthorizationPolicies.
    pub authz: Arc<authz::Index>,
    /// Filters of sets of AuthorizationPolicies; of this snapshot alone, since
    /// they depend on services, too.
    pub(crate) authz_filters: Memo<Vec<usize>, rbac::Filters>,
    /// RequestAuthentications.
    pub jwt: Arc<jwt::Index>,
    /// Filters of sets of RequestAuthentications, for gateways and for others.
    pub(crate) jwt_filters: Memo<(Vec<usize>, bool), Vec<HttpFilter>>,
    /// Sidecars.
    pub sidecars: Arc<sidecar::Index>,
    /// Telemetry.
    pub telemetry: Arc<telemetry::Index>,
    /// Loggers of the providers, which depend on services, too.
    pub(crate) loggers: OnceLock<Loggers>,
    /// Filters of metrics of sets of Telemetry objects.
    pub(crate) stats_filters: Memo<stats::Key, stats::Filters>,
    /// WasmPlugins and TrafficExtensions.
    pub extensions: Arc<wasm::Index>,
    /// EnvoyFilters.
    pub envoy_filters: Arc<envoy_filter::Index>,
    /// What is wrong with objects in view of others.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// Indexes the objects of a store.
    #[must_use]
    pub fn build(store: &Store, settings: &Settings) -> Self {
        Self::make(store, settings, &Basis { previous: None, kinds: &BTreeSet::new() })
    }

    /// The snapshot that follows on this one: `kinds` are those of objects that
    /// have changed. What depends on no other is taken over as it is.
    #[must_use]
    pub fn next(&self, store: &Store, kinds: &BTreeSet<Kind>) -> Self {
        self.next_with_keys(store, kinds, self.settings.key_sets.clone())
    }

    /// The same with other key sets of token issuers. `kinds` must then name
    /// RequestAuthentication if any of them takes keys that have changed.
    #[must_use]
    pub fn next_with_keys(&self, store: &Store, kinds: &BTreeSet<Kind>, key_sets: Arc<KeySets>) -> Self {
        let settings = Settings { key_sets, ..self.settings.clone() };
        Self::make(store, &settings, &Basis { previous: Some(self), kinds })
    }

    fn make(store: &Store, settings: &Settings, basis: &Basis<'_>) -> Self {
        let mesh = settings.mesh.clone();
        let root = &mesh.root_namespace;
        let domain = settings.domain.to_string();
        let pods = basis.keep(&[Kind::Pod, Kind::Node], |old| &old.pods, || pods(store, basis.pods()));
        let authn =
            basis.keep(&[Kind::PeerAuthentication], |old| &old.authn, || authn::Index::build(store, root));
        let authz =
            basis.keep(&[Kind::AuthorizationPolicy], |old| &old.authz, || authz::Index::build(store, &mesh));
        let jwt =
            basis.keep(&[Kind::RequestAuthentication], |old| &old.jwt, || jwt::Index::build(store, root));
        let make = || network::Networks::build(store, settings);
        let networks = basis.keep(&[Kind::Service, Kind::Namespace, Kind::Node], |old| &old.networks, make);
        let context =
            service::Context { store, settings, authn: &authn, networks: &networks, domain: &domain };
        let made = basis.services(&context);
        let services = made.services.clone();
        let make = || directory::Directory::new(&services);
        let directory = basis.keep(basis::OF_SERVICES, |old| &old.directory, make);
        let sidecars =
            basis.keep(&[Kind::Sidecar], |old| &old.sidecars, || sidecar::Index::build(store, root));
        let destination_rules = basis.keep(
            &[Kind::DestinationRule],
            |old| &old.destination_rules,
            || destination_rule::Index::build(store, &mesh, &domain),
        );
        let virtual_services = basis.keep(
            &[Kind::VirtualService],
            |old| &old.virtual_services,
            || virtual_service::Index::build(store, &mesh, &domain),
        );
        let gateways = basis.keep(&[Kind::Gateway], |old| &old.gateways, || gateway::Index::build(store));
        let secrets =
            basis.keep(&[Kind::Secret, Kind::ConfigMap], |old| &old.secrets, || secret::Index::build(store));
        let telemetry =
            basis.keep(&[Kind::Telemetry], |old| &old.telemetry, || telemetry::Index::build(store, root));
        let extensions = basis.keep(
            &[Kind::WasmPlugin, Kind::TrafficExtension],
            |old| &old.extensions,
            || wasm::Index::build(store, root),
        );
        let before = basis.previous.map(|old| &*old.envoy_filters);
        let envoy_filters = basis.keep(
            &[Kind::EnvoyFilter],
            |old| &old.envoy_filters,
            || envoy_filter::Index::build(store, root, before),
        );
        let traits = basis.traits(store, &mesh, &services);
        let mut snapshot = Self {
            mesh_names_grpc_stats: basis
                .previous
                .filter(|old| Arc::ptr_eq(&old.mesh, &mesh))
                .map_or_else(|| grpc_stats::is_named_in(&**mesh), |old| old.mesh_names_grpc_stats),
            mesh,
            settings: settings.clone(),
            domain,
            services,
            made,
            directory,
            networks,
            pods,
            traits,
            destination_rules,
            virtual_services,
            gateways,
            secrets,
            authn,
            authz,
            authz_filters: Memo::default(),
            jwt,
            jwt_filters: Memo::default(),
            sidecars,
            telemetry,
            loggers: OnceLock::new(),
            stats_filters: Memo::default(),
            extensions,
            envoy_filters,
            problems: Vec::new(),
        };
        snapshot.problems = basis.problems(|| {
            let mut problems = virtual_service::dangling(store, &snapshot);
            problems.extend(gateway::problems(store, &snapshot));
            problems.extend(telemetry::dangling(store, &snapshot));
            problems.extend(network::problems(store, settings));
            problems.extend(snapshot.envoy_filters.problems(store));
            problems
        });
        let of_policies = authz::problems(store, &snapshot);
        snapshot.problems.extend(of_policies);
        snapshot
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.directory.find(host)
    }

    /// The pod of a proxy, if it is known.
    #[must_use]
    pub fn pod_of(&self, proxy: &crate::proxy::Proxy) -> Option<&Workload> {
        let pod = proxy.ips.iter().find_map(|ip| self.pod(*ip));
        pod.filter(|pod| pod.meta.namespace == proxy.namespace)
    }

    /// The pod at that address.
    #[must_use]
    pub fn pod(&self, ip: IpAddr) -> Option<&Workload> {
        self.pods.get(&ip).map(|pod| &**pod)
    }
}

type Pods = BTreeMap<IpAddr, Arc<Workload>>;

/// Pods by address; those on the node's network share theirs and are left out.
/// Where `old` ones are given, those that are as they were are the same.
fn pods(store: &Store, old: Option<&Pods>) -> Pods {
    let mut pods = BTreeMap::new();
    for object in store.shared(Kind::Pod) {
        let Some(pod) = Pod::of(&object.spec) else { continue };
        if pod.spec.host_network || pod.is_finished() {
            continue;
        }
        for ip in pod.addresses().filter_map(|ip| ip.parse().ok()) {
            let known = old.and_then(|old| old.get(&ip)).filter(|old| Arc::ptr_eq(&old.source, object));
            let workload = known.cloned().unwrap_or_else(|| {
                let locality = endpoint::of_pod(store, &object.meta, pod);
                let (meta, pod, source) = (object.meta.clone(), pod.clone(), object.clone());
                Arc::new(Workload { meta, pod, locality, source })
            });
            pods.insert(ip, workload);
        }
    }
    pods
}
