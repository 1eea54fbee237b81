//! What the user asked for: command line, environment, resolved settings.

pub mod args;
pub mod env;
pub mod features;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh::{MeshConfig, MeshNetworks};

/// Everything `istiod discovery` needs to start, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of YAML files that is the configuration.
    pub config_dir: PathBuf,
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
    /// Namespace of the control plane, part of its host name.
    pub namespace: String,
    /// Name of the cluster; proxies of the mesh name the same.
    pub cluster_id: String,
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
    /// Quiet time before a change is pushed.
    pub debounce_after: Duration,
    /// Longest time a change waits while others keep coming.
    pub debounce_max: Duration,
    /// How many proxies are computed at the same time.
    pub push_throttle: usize,
    /// Whether a proxy's token must fit its namespace and service account.
    pub identity_check: bool,
    /// Time that open streams have to end at shutdown.
    pub shutdown: Duration,
    /// Interval and time-out of HTTP/2 pings to proxies.
    pub keepalive: (Duration, Duration),
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
