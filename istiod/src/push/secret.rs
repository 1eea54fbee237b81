//! Secrets for one connection: only for identities that its caller has proven.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Store;
use mesh::MeshConfig;
use names::SpiffeId;
use pilot::generate::{Refusal, extensions, secrets};
use pilot::{Proxy, Snapshot};
use proto::istio::extensions::v1alpha1::traffic_extension::FilterConfig;
use proto::istio::extensions::v1alpha1::{TrafficExtension, WasmPlugin};
use tracing::warn;
use xds::Resource;
use xds::session::Wanted;

use crate::auth::Caller;
use crate::kube::access::Access;
use crate::metrics::Metrics;

/// Refused secrets of one connection that are told; a proxy may name any number.
const MAX_TOLD: usize = 100;

/// What decides on secrets at one connection.
#[derive(Debug)]
pub(super) struct Secrets {
    /// The caller's identities; none on the plaintext port.
    identities: Vec<SpiffeId>,
    /// Namespaces of which the caller may read the Secrets; all, where no cluster says it.
    readable: Option<BTreeSet<String>>,
    /// Secrets that the proxy asks for and does not get, told once.
    refused: BTreeMap<Arc<str>, Refusal>,
}

impl Secrets {
    /// Those of a caller.
    pub(super) fn new(caller: Option<&Caller>) -> Self {
        let identities = caller.map(|caller| caller.identities.clone()).unwrap_or_default();
        Self { identities, readable: None, refused: BTreeMap::new() }
    }

    /// Looks whose Secrets the caller may read, of the namespaces where that
    /// matters; `false` when the API server has still to say it.
    pub(super) fn look_at(&mut self, access: &Access, matters: impl Fn(&str) -> bool) -> bool {
        let ids: Vec<&SpiffeId> =
            self.identities.iter().filter(|id| matters(id.namespace.as_str())).collect();
        if ids.is_empty() {
            self.readable.get_or_insert_default();
            return true;
        }
        let mut readable = BTreeSet::new();
        let mut is_known = true;
        for id in ids {
            let (namespace, account) = (id.namespace.as_str(), id.service_account.as_str());
            match access.may_list(namespace, account) {
                Some(true) => drop(readable.insert(namespace.to_owned())),
                Some(false) => {}
                None => is_known = false,
            }
        }
        if is_known {
            self.readable = Some(readable);
        } else {
            // Nothing is given away meanwhile.
            self.readable.get_or_insert_default();
        }
        is_known
    }

    /// Of these namespaces, those whose Secrets the caller may read.
    fn readable(&self, proven: &[String]) -> Vec<String> {
        let may_read =
            |namespace: &&String| self.readable.as_ref().is_none_or(|all| all.contains(*namespace));
        proven.iter().filter(may_read).cloned().collect()
    }

    /// Namespaces that the caller has proven to be of. An identity of another
    /// mesh proves nothing in this one: its namespace is another one.
    fn proven(&self, mesh: &MeshConfig) -> Vec<String> {
        let is_ours = |id: &&SpiffeId| {
            let domain = id.trust_domain.as_str();
            domain == mesh.trust_domain() || mesh.trust_domain_aliases.iter().any(|alias| alias == domain)
        };
        let ours = self.identities.iter().filter(is_ours);
        let namespaces: BTreeSet<&str> = ours.map(|id| id.namespace.as_str()).collect();
        namespaces.into_iter().map(str::to_owned).collect()
    }

    /// The extension configurations of those names, with the credentials of
    /// registries that the proxy may have.
    pub(super) fn extensions(&self, snapshot: &Snapshot, proxy: &Proxy, wanted: &Wanted) -> Vec<Resource> {
        extensions(snapshot, proxy, &self.readable(&self.proven(&snapshot.mesh)), wanted)
    }

    /// The secrets of those names that the proxy may have and that there are.
    pub(super) fn resources(
        &mut self,
        snapshot: &Snapshot,
        proxy: &Proxy,
        wanted: &Wanted,
        metrics: &Metrics,
    ) -> Vec<Resource> {
        let proven = self.proven(&snapshot.mesh);
        let (made, refused) = secrets(snapshot, proxy, &proven, &self.readable(&proven), wanted);
        for resource in &made {
            self.refused.remove(&resource.name);
        }
        for (name, refusal) in refused {
            if self.refused.get(&name) == Some(&refusal) {
                continue;
            }
            metrics.secret_refused();
            if self.refused.len() >= MAX_TOLD && !self.refused.contains_key(&name) {
                continue;
            }
            warn!(target: "ads", node = %proxy.id, secret = &*name, reason = %refusal, "secret not sent");
            self.refused.insert(name, refusal);
        }
        made
    }
}

/// Whether an extension of a namespace is pulled with credentials. Only then the
/// accounts of sidecars, of which there are many, are asked about.
pub(super) fn pulls(store: &Store, namespace: &str) -> bool {
    let mut plugins = store.all::<WasmPlugin>();
    let mut extensions = store.all::<TrafficExtension>();
    plugins.any(|(object, plugin)| {
        object.meta.namespace == namespace && !plugin.image_pull_secret.is_empty()
    }) || extensions.any(|(object, extension)| {
        object.meta.namespace == namespace
            && matches!(&extension.filter_config, Some(FilterConfig::Wasm(wasm)) if !wasm.image_pull_secret.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_counts_in_the_trust_domains_of_the_mesh() {
        let mesh = MeshConfig::from_yaml("{trustDomain: td, trustDomainAliases: [old-td]}").unwrap();
        let proven = |identities: &[&str]| {
            let identities = identities.iter().map(|id| id.parse().unwrap()).collect();
            Secrets::new(Some(&Caller { identities, by: "test", pod: None })).proven(&mesh)
        };
        assert_eq!(proven(&["spiffe://td/ns/edge/sa/a", "spiffe://td/ns/edge/sa/b"]), ["edge"]);
        assert_eq!(proven(&["spiffe://old-td/ns/edge/sa/a"]), ["edge"]);
        assert!(proven(&["spiffe://other/ns/edge/sa/a", "spiffe://tdx/ns/edge/sa/a"]).is_empty());
        assert!(Secrets::new(None).proven(&mesh).is_empty());
    }
}
