//! Secrets for one connection: only for identities that its caller has proven.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilot::generate::{Refusal, extensions, secrets};
use pilot::{Proxy, Snapshot};
use tracing::warn;
use xds::Resource;
use xds::session::Wanted;

use crate::auth::Caller;
use crate::metrics::Metrics;

/// Refused secrets of one connection that are told; a proxy may name any number.
const MAX_TOLD: usize = 100;

/// What decides on secrets at one connection.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Namespaces of the caller's identities; none on the plaintext port.
    proven: Vec<String>,
    /// Secrets that the proxy asks for and does not get, told once.
    refused: BTreeMap<Arc<str>, Refusal>,
}

impl Secrets {
    /// Those of a caller.
    pub(super) fn new(caller: Option<&Caller>) -> Self {
        let identities = caller.into_iter().flat_map(|caller| &caller.identities);
        let mut proven: Vec<String> = identities.map(|id| id.namespace.as_str().to_owned()).collect();
        proven.sort();
        proven.dedup();
        Self { proven, refused: BTreeMap::new() }
    }

    /// The extension configurations of those names, with the credentials of
    /// registries that the proxy may have.
    pub(super) fn extensions(&self, snapshot: &Snapshot, proxy: &Proxy, wanted: &Wanted) -> Vec<Resource> {
        extensions(snapshot, proxy, &self.proven, wanted)
    }

    /// The secrets of those names that the proxy may have and that there are.
    pub(super) fn resources(
        &mut self,
        snapshot: &Snapshot,
        proxy: &Proxy,
        wanted: &Wanted,
        metrics: &Metrics,
    ) -> Vec<Resource> {
        let (made, refused) = secrets(snapshot, proxy, &self.proven, wanted);
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
