//! Which mode of mutual TLS holds for a workload and a port (PeerAuthentication).

use std::collections::BTreeMap;

use config::Store;
use proto::istio::security::v1beta1::PeerAuthentication;
use proto::istio::security::v1beta1::peer_authentication::MutualTls;
use proto::istio::security::v1beta1::peer_authentication::mutual_tls::Mode;

/// What a workload accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Mutual TLS and plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// What a policy says, if anything.
fn mode(mtls: Option<&MutualTls>) -> Option<MtlsMode> {
    match mtls?.mode() {
        Mode::Unset => None,
        Mode::Disable => Some(MtlsMode::Disable),
        Mode::Permissive => Some(MtlsMode::Permissive),
        Mode::Strict => Some(MtlsMode::Strict),
    }
}

/// All policies by level.
#[derive(Debug, Default)]
pub struct Index {
    mesh: Option<MtlsMode>,
    namespaces: BTreeMap<String, Option<MtlsMode>>,
    /// By namespace, the oldest first.
    workloads: BTreeMap<String, Vec<PeerAuthentication>>,
}

/// The modes of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    /// For ports without one of their own.
    pub default: MtlsMode,
    /// By port of the workload.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl Modes {
    /// The mode of a port.
    #[must_use]
    pub fn of_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

impl Index {
    /// Indexes the policies of a store; at each level the oldest counts.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str) -> Self {
        let mut index = Self::default();
        let mut has_mesh = false;
        for (object, policy) in store.by_age::<PeerAuthentication>() {
            let namespace = object.meta.namespace.as_str();
            let selects = policy.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
            if selects {
                // One that selects workloads counts in its own namespace only, and in the root namespace not at all.
                if namespace != root_namespace {
                    index.workloads.entry(namespace.into()).or_default().push(policy.clone());
                }
            } else if namespace == root_namespace {
                if !std::mem::replace(&mut has_mesh, true) {
                    index.mesh = mode(policy.mtls.as_ref());
                }
            } else {
                index.namespaces.entry(namespace.into()).or_insert_with(|| mode(policy.mtls.as_ref()));
            }
        }
        index
    }

    /// The mode of a namespace as clients guess it: policies for single
    /// workloads are not looked at, each endpoint speaks for itself.
    #[must_use]
    pub fn namespace_mode(&self, namespace: &str) -> MtlsMode {
        let own = self.namespaces.get(namespace).copied().flatten();
        own.or(self.mesh).unwrap_or(MtlsMode::Permissive)
    }

    /// The modes of a workload: its own policy before its namespace's before
    /// the mesh's; what a policy leaves unset comes from the level above.
    #[must_use]
    pub fn modes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Modes {
        let inherited = self.namespace_mode(namespace);
        let own = self
            .workloads
            .get(namespace)
            .into_iter()
            .flatten()
            .find(|policy| config::workload_matches(policy.selector.as_ref(), labels));
        let Some(own) = own else { return Modes { default: inherited, ports: BTreeMap::new() } };
        let default = mode(own.mtls.as_ref()).unwrap_or(inherited);
        let ports = own
            .port_level_mtls
            .iter()
            .filter_map(|(port, mtls)| {
                Some((u16::try_from(*port).ok()?, mode(Some(mtls)).unwrap_or(default)))
            })
            .collect();
        Modes { default, ports }
    }
}
