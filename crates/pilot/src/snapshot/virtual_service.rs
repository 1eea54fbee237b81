//! VirtualServices: which hold at whom, with their names resolved and their
//! delegates merged in.

mod dangling;
mod delegate;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Store;
use mesh::MeshConfig;
use names::Hostname;
use proto::istio::networking::v1alpha3::VirtualService;

pub(super) use dangling::{dangling, dangling_in};

/// Gateway name that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// A VirtualService with names resolved and delegates merged in.
#[derive(Debug)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<Hostname>,
    /// Where it holds: [`MESH_GATEWAY`], or gateways as `NAMESPACE/NAME`.
    pub gateways: Vec<String>,
    /// What it says, with full names of gateways and destinations.
    pub spec: VirtualService,
}

/// What is bound to one gateway, by who sees it; each list the oldest first.
#[derive(Debug, Default)]
struct Bound {
    /// Seen by their own namespace only.
    private: BTreeMap<String, Vec<Arc<Entry>>>,
    /// Exported to other namespaces by name.
    exported: BTreeMap<String, Vec<Arc<Entry>>>,
    public: Vec<Arc<Entry>>,
}

/// VirtualServices by the gateway they are bound to.
#[derive(Debug, Default)]
pub struct Index(BTreeMap<String, Bound>);

impl Index {
    /// Indexes those of a store.
    #[must_use]
    pub fn build(store: &Store, mesh: &MeshConfig, domain: &str) -> Self {
        let mut bound: BTreeMap<String, Bound> = BTreeMap::new();
        for (object, spec) in store.by_age::<VirtualService>() {
            // One without hosts holds only by way of others that delegate to it.
            if spec.hosts.is_empty() {
                continue;
            }
            let namespace = &object.meta.namespace;
            let export_to = if spec.export_to.is_empty() {
                &mesh.default_virtual_service_export_to
            } else {
                &spec.export_to
            };
            let export_to: BTreeSet<&str> =
                export_to.iter().map(|name| if name == "." { namespace } else { name }.as_str()).collect();
            let spec = delegate::merged(store, mesh, namespace, spec, domain);
            let mut gateways = spec.gateways.clone();
            if gateways.is_empty() {
                gateways.push(MESH_GATEWAY.into());
            }
            let entry = Arc::new(Entry {
                namespace: namespace.clone(),
                name: object.meta.name.clone(),
                hosts: spec.hosts.iter().map(|host| Hostname::new(host)).collect(),
                gateways,
                spec,
            });
            let distinct: BTreeSet<&String> = entry.gateways.iter().collect();
            for gateway in distinct {
                bound.entry(gateway.clone()).or_default().add(&entry, &export_to);
            }
        }
        Self(bound)
    }

    /// Those that sidecars of a namespace follow, in the order of precedence:
    /// seen by their own namespace only, exported to it by name, then public
    /// ones; among these the oldest first.
    pub fn visible<'a>(&'a self, client: &str) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        self.for_gateway(client, MESH_GATEWAY)
    }

    /// Those that a gateway (`NAMESPACE/NAME`) follows whose proxy is in namespace
    /// `client`, in the order of precedence of [`Index::visible`].
    pub fn for_gateway<'a>(
        &'a self,
        client: &str,
        gateway: &str,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let bound = self.0.get(gateway);
        let private = bound.and_then(|bound| bound.private.get(client));
        let exported = bound.and_then(|bound| bound.exported.get(client));
        let public = bound.map(|bound| &bound.public);
        [private, exported, public].into_iter().flatten().flatten()
    }
}

impl Bound {
    fn add(&mut self, entry: &Arc<Entry>, export_to: &BTreeSet<&str>) {
        if export_to.contains("*") {
            return self.public.push(entry.clone());
        }
        // Exported to nobody, whatever else is named.
        if export_to.contains("~") {
            return;
        }
        for namespace in export_to {
            let list = if *namespace == entry.namespace { &mut self.private } else { &mut self.exported };
            list.entry((*namespace).to_owned()).or_default().push(entry.clone());
        }
    }
}
