//! What translation depends on besides the objects: settings of the mesh and of
//! the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::MeshConfig;

/// Switches of the control plane, each named as the environment variable of
/// Istio that sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `ISTIO_DUAL_STACK`: listeners and clusters for both families of addresses.
    pub dual_stack: bool,
    /// `PILOT_SEND_UNHEALTHY_ENDPOINTS`: endpoints that are not ready are sent as unhealthy.
    pub send_unhealthy_endpoints: bool,
    /// `PILOT_ENABLE_MONGO_FILTER`: MongoDB's statistics.
    pub mongo_filter: bool,
    /// `PILOT_ENABLE_MYSQL_FILTER`: MySQL's statistics.
    pub mysql_filter: bool,
    /// `PILOT_ENABLE_REDIS_FILTER`: Redis' statistics.
    pub redis_filter: bool,
    /// `PILOT_ENABLE_ALPN_FILTER`: requests between sidecars say inside TLS that they are HTTP.
    pub alpn: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            dual_stack: false,
            send_unhealthy_endpoints: false,
            mongo_filter: true,
            mysql_filter: false,
            redis_filter: false,
            alpn: true,
        }
    }
}

/// Settings of translation; cheap to clone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of the mesh.
    pub mesh: Arc<MeshConfig>,
    /// Name of this cluster.
    pub cluster_id: Arc<str>,
    /// Switches.
    pub features: Features,
    /// Key sets of token issuers as JSON, by the URI they were fetched from.
    pub key_sets: Arc<BTreeMap<String, String>>,
}

impl Settings {
    /// Settings with every switch at its default.
    #[must_use]
    pub fn new(mesh: Arc<MeshConfig>, cluster_id: &str) -> Self {
        Self { mesh, cluster_id: cluster_id.into(), features: Features::default(), key_sets: Arc::default() }
    }
}
