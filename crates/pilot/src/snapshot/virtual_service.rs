//! VirtualServices for sidecars: which one holds for a host.

use std::sync::Arc;

use config::{Key, Position, Problem, Severity, Store};
use mesh::MeshConfig;
use names::Hostname;
use proto::istio::networking::v1alpha3::VirtualService;

use super::Snapshot;
use super::visibility::Visibility;

/// A VirtualService with its hosts resolved.
#[derive(Debug)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<Hostname>,
    /// What it says.
    pub spec: VirtualService,
    visibility: Visibility,
}

/// VirtualServices, the oldest first.
#[derive(Debug, Default)]
pub struct Index(Vec<Arc<Entry>>);

/// Gateway name that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

impl Index {
    /// Indexes those of a store that sidecars follow.
    #[must_use]
    pub fn build(store: &Store, mesh: &MeshConfig, domain: &str) -> Self {
        let mut entries = Vec::new();
        for (object, spec) in store.by_age::<VirtualService>() {
            let for_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == MESH_GATEWAY);
            if !for_mesh || spec.hosts.is_empty() {
                continue;
            }
            let namespace = &object.meta.namespace;
            entries.push(Arc::new(Entry {
                namespace: namespace.clone(),
                name: object.meta.name.clone(),
                hosts: spec.hosts.iter().map(|host| Hostname::resolve(host, namespace, domain)).collect(),
                visibility: Visibility::new(
                    &spec.export_to,
                    &mesh.default_virtual_service_export_to,
                    namespace,
                ),
                spec: spec.clone(),
            }));
        }
        Self(entries)
    }

    /// Those that clients of a namespace follow, the oldest first.
    pub fn visible<'a>(&'a self, client: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.0.iter().filter(move |entry| entry.visibility.includes(client))
    }

    /// The one that decides on a host: an exact name before a wildcard, a long
    /// wildcard before a short one, and among equals the oldest.
    #[must_use]
    pub fn find<'a>(&'a self, client: &'a str, host: &Hostname) -> Option<&'a Arc<Entry>> {
        let candidates = self.visible(client).filter_map(|entry| {
            let best = entry
                .hosts
                .iter()
                .filter(|own| own.covers(host))
                .map(|own| (own.is_wildcard(), std::cmp::Reverse(own.as_str().len())))
                .min()?;
            Some((best, entry))
        });
        candidates.min_by_key(|(best, _)| *best).map(|(_, entry)| entry)
    }
}

/// Warnings for destinations that do not exist: requests to them fail.
pub(super) fn dangling(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (object, spec) in store.all::<VirtualService>() {
        for (route_index, route) in spec.http.iter().enumerate() {
            for (index, target) in route.route.iter().enumerate() {
                let Some(destination) = &target.destination else { continue };
                let namespace = &object.meta.namespace;
                let host = Hostname::resolve(&destination.host, namespace, &snapshot.domain);
                let field = format!("spec.http[{route_index}].route[{index}].destination");
                let message = match snapshot.service(&host) {
                    None => format!("there is no service {host}: requests on this route fail"),
                    Some(service) if !destination.subset.is_empty() => {
                        let rule = snapshot.destination_rules.find(namespace, &host, &service.namespace);
                        let known = rule.is_some_and(|rule| {
                            rule.subsets.iter().any(|subset| subset.name == destination.subset)
                        });
                        if known {
                            continue;
                        }
                        format!(
                            "no DestinationRule defines a subset {:?} of {host}: requests on this route fail",
                            destination.subset
                        )
                    }
                    Some(_) => continue,
                };
                problems.push(warning(&object.key, &object.position, field, message));
            }
        }
    }
    problems
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
