//! All objects that are looked at together, and the ways to find them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use mesh::{MeshConfig, MeshNetworks};
use prost::Message;

use crate::hosts::Hosts;
use crate::kube::{Deployment, PodSpec, Service};
use crate::pods::Pods;
use crate::{Body, Kind, Labels, Resource};

/// Namespaces of the cluster's own that nobody means.
const IGNORED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Which kinds are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Configuration alone: what runs is not known, and is not missed.
    Configuration,
    /// All kinds: what is not there does not exist.
    Everything,
}

impl Scope {
    /// Whether objects of a kind count.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self == Self::Everything || !kind.is_runtime()
    }
}

/// The objects and what all analyzers find them by.
#[derive(Debug)]
pub struct World {
    resources: Vec<Resource>,
    /// By kind, in order of namespace and name.
    kinds: BTreeMap<Kind, Vec<usize>>,
    /// Settings of the mesh.
    pub mesh: Arc<MeshConfig>,
    /// Networks of the mesh.
    pub networks: Arc<MeshNetworks>,
    /// Which kinds count.
    pub scope: Scope,
    /// When they are looked at: certificates end.
    pub now: SystemTime,
    hosts: OnceLock<Hosts>,
    pods: OnceLock<Pods>,
    selected: OnceLock<HashMap<Box<str>, Vec<usize>>>,
}

impl World {
    /// A world of these objects; a later one replaces one of the same name in
    /// the same cluster. `istio` is the namespace of the control plane.
    #[must_use]
    pub fn new(
        objects: Vec<Resource>,
        mesh: MeshConfig,
        networks: MeshNetworks,
        istio: &str,
        scope: Scope,
        now: SystemTime,
    ) -> Self {
        let (mesh, networks) = (Arc::new(mesh), Arc::new(networks));
        let own = |kind: Kind, name: &str, body: Body| Resource {
            kind,
            namespace: istio.into(),
            name: name.into(),
            labels: Labels::default(),
            annotations: Labels::default(),
            body,
            conditions: Box::default(),
            source: None,
            cluster: Arc::default(),
        };
        let settings = [
            own(Kind::MeshConfig, "meshconfig", Body::Mesh(mesh.clone())),
            own(Kind::MeshNetworks, "meshnetworks", Body::Networks(networks.clone())),
        ];
        let mut resources = objects;
        resources.retain(|one| scope.has(one.kind) && !IGNORED.contains(&one.home()));
        resources.extend(settings);
        let mut order: Vec<usize> = (0..resources.len()).collect();
        let key = |at: &usize| {
            let one = &resources[*at];
            (one.kind, &*one.namespace, &*one.name, &*one.cluster)
        };
        // Of the same name the last one stands first.
        order.sort_by(|a, b| key(a).cmp(&key(b)).then(b.cmp(a)));
        order.dedup_by(|later, first| key(later) == key(first));
        let mut kinds: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for at in order {
            kinds.entry(resources[at].kind).or_default().push(at);
        }
        Self {
            resources,
            kinds,
            mesh,
            networks,
            scope,
            now,
            hosts: OnceLock::new(),
            pods: OnceLock::new(),
            selected: OnceLock::new(),
        }
    }

    /// All objects of a kind by namespace and name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.kinds.get(&kind).into_iter().flatten().map(|at| &self.resources[*at])
    }

    /// All objects of one of Istio's kinds by namespace and name, each read anew.
    pub(crate) fn all<T: Message + Default>(&self, kind: Kind) -> impl Iterator<Item = (&Resource, T)> {
        self.of(kind).filter_map(|one| Some((one, one.spec::<T>()?)))
    }

    /// The object of that name.
    #[must_use]
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Resource> {
        let all = self.kinds.get(&kind)?;
        let at = all.partition_point(|at| {
            let one = &self.resources[*at];
            (&*one.namespace, &*one.name) < (namespace, name)
        });
        let found = &self.resources[*all.get(at)?];
        (*found.namespace == *namespace && *found.name == *name).then_some(found)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = (&Resource, &Service)> {
        self.of(Kind::Service).filter_map(|one| match &one.body {
            Body::Service(service) => Some((one, &**service)),
            _ => None,
        })
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = (&Resource, &PodSpec)> {
        self.of(Kind::Pod).filter_map(|one| Some((one, pod(one)?)))
    }

    /// All deployments.
    pub fn deployments(&self) -> impl Iterator<Item = (&Resource, &Deployment)> {
        self.of(Kind::Deployment).filter_map(|one| match &one.body {
            Body::Deployment(deployment) => Some((one, &**deployment)),
            _ => None,
        })
    }

    /// The labels of a namespace.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.find(Kind::Namespace, "", name).map(|namespace| &namespace.labels)
    }

    /// Hosts of all services.
    pub(crate) fn hosts(&self) -> &Hosts {
        self.hosts.get_or_init(|| Hosts::new(self))
    }

    /// Pods with all of these labels, of one namespace or of all, by namespace
    /// and name. No labels select all.
    pub(crate) fn selected_pods<'w: 's, 's>(
        &'w self,
        namespace: Option<&'s str>,
        wanted: impl Iterator<Item = (&'s str, &'s str)> + Clone + 's,
    ) -> impl Iterator<Item = (&'w Resource, &'w PodSpec)> + 's {
        let index = self.pods.get_or_init(|| {
            let pods = self.kinds.get(&Kind::Pod).into_iter().flatten();
            Pods::new(pods.map(|at| (*at, &self.resources[*at])))
        });
        let candidates = index.candidates(namespace, wanted.clone());
        candidates.iter().filter_map(move |at| {
            let one = &self.resources[*at];
            let is_there = namespace.is_none_or(|namespace| *one.namespace == *namespace);
            let fits = is_there && one.labels.fits(wanted.clone());
            fits.then(|| pod(one)).flatten().map(|spec| (one, spec))
        })
    }

    /// Services of a namespace that select pods with these labels.
    pub(crate) fn services_of<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (&'a Resource, &'a Service)> + 'a {
        // By the namespace and the first label that they select by.
        let index = self.selected.get_or_init(|| {
            let mut index: HashMap<Box<str>, Vec<usize>> = HashMap::new();
            for at in self.kinds.get(&Kind::Service).into_iter().flatten() {
                let one = &self.resources[*at];
                if let Body::Service(service) = &one.body
                    && let Some(first) = service.selector.iter().next()
                {
                    index.entry(pair(&one.namespace, first)).or_default().push(*at);
                }
            }
            index
        });
        let found = labels.iter().filter_map(move |label| index.get(&pair(namespace, label))).flatten();
        found.filter_map(move |at| {
            let one = &self.resources[*at];
            let Body::Service(service) = &one.body else { return None };
            labels.fits(service.selector.iter()).then_some((one, &**service))
        })
    }
}

fn pair(namespace: &str, (name, value): (&str, &str)) -> Box<str> {
    format!("{namespace}\n{name}\n{value}").into()
}

fn pod(one: &Resource) -> Option<&PodSpec> {
    if let Body::Pod(spec) = &one.body { Some(spec) } else { None }
}
