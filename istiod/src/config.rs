//! What the user asked for: command line, environment, resolved settings.

pub mod args;
pub mod authority;
pub mod env;
pub mod features;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh::{MeshConfig, MeshNetworks};

/// Everything `istiod discovery` needs to start, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub objects: Objects,
    /// Directory that keeps the CA and token keys.
    pub state_dir: PathBuf,
    /// Directory of plug-in CA files (`ca-cert.pem`, …); used when they are there.
    pub ca_dir: PathBuf,
    /// xDS and CA over TLS.
    pub secure_grpc: SocketAddr,
    /// xDS in plaintext; only when asked for.
    pub plain_grpc: Option<SocketAddr>,
    /// Metrics and debug pages.
    pub monitoring: SocketAddr,
    /// Readiness.
    pub http: SocketAddr,
    /// Levels of the log.
    pub controlz: Option<SocketAddr>,
    /// What the API server asks.
    pub webhooks: crate::webhook::Settings,
    /// Namespace of the control plane, part of its host name.
    pub namespace: String,
    /// Domain of the cluster's services.
    pub domain: String,
    /// The only namespace of the cluster that is watched, if there is one.
    pub watched: Option<String>,
    /// Name of the cluster; proxies of the mesh name the same.
    pub cluster_id: String,
    /// Who signs, and whose tokens are taken.
    pub authority: authority::Authority,
    /// Further host names for istiod's own certificate.
    pub custom_hosts: Vec<String>,
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    /// Networks that the mesh spans.
    pub networks: MeshNetworks,
    /// Switches of translation.
    pub features: pilot::Features,
    /// Environment variables that providers of the mesh are told the values of.
    pub provider_variables: BTreeMap<String, String>,
    /// How keys of token issuers are fetched.
    pub keys: crate::jwks::Settings,
    /// Audiences a token may have.
    pub audiences: Vec<String>,
    /// Lifetime of a workload certificate when the request names none.
    pub workload_ttl: Duration,
    /// Longest lifetime a request may ask for.
    pub max_workload_ttl: Duration,
    /// Lifetime of a self-signed root.
    pub root_ttl: Duration,
    /// Time between two looks at the age of a self-signed root.
    pub root_check: Duration,
    /// The last part of its life, in percent, in which a self-signed root is renewed.
    pub root_grace: u32,
    /// Quiet time before a change is pushed.
    pub debounce_after: Duration,
    /// Longest time a change waits while others keep coming.
    pub debounce_max: Duration,
    /// Time in which a proxy must take a response.
    pub send_timeout: Duration,
    /// How many proxies are computed at the same time.
    pub push_throttle: usize,
    /// Whether a proxy's token must fit its namespace and service account.
    pub identity_check: bool,
    /// Name of this istiod among others; `istioctl` shows it.
    pub instance: String,
    /// Name under which it holds what only one of several may hold; no other has it.
    pub holder: String,
    /// Whether one of several istiods writes; else all do.
    pub leader_election: bool,
    /// Networks of gateways that are believed what they say of their clients' certificates.
    pub trusted_gateways: Vec<crate::jwks::Network>,
    /// Service accounts of proxies that ask for certificates of all workloads of their node.
    pub trusted_node_accounts: BTreeSet<(String, String)>,
    /// Names of the ConfigMaps of roots and of revocation lists.
    pub ca_maps: [String; 2],
    /// Whether debug pages are for those of the control plane's namespace.
    pub debug_auth: bool,
    /// Further namespaces whose service accounts see all debug pages.
    pub debug_namespaces: Vec<String>,
    /// Time that open streams have to end at shutdown.
    pub shutdown: Duration,
    /// Interval and time-out of HTTP/2 pings to proxies.
    pub keepalive: (Duration, Duration),
    /// Time after which connections of proxies end.
    pub max_connection_age: Option<Duration>,
    /// What is done for workloads that register themselves.
    pub registration: crate::register::Settings,
}

impl Settings {
    /// Remembers the environment for what a mesh configuration names later.
    #[must_use]
    pub fn with_environment(mut self, environment: BTreeMap<String, String>) -> Self {
        if let Objects::Kubernetes { mesh, .. } = &mut self.objects {
            mesh.environment.0 = environment.into();
        }
        self
    }
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Objects {
    /// A directory of YAML files.
    Directory(PathBuf),
    /// A cluster, which may have the mesh configuration, too.
    Kubernetes {
        /// How its API server is reached.
        api: crate::kube::Settings,
        /// Where its mesh configuration is.
        mesh: crate::kube::mesh::Settings,
    },
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name}={value:?}: {why}")]
pub struct Error {
    /// Flag or environment variable.
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What is wrong and how to write it.
    pub why: String,
}
