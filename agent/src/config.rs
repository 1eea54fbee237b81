//! What the agent runs with: flags, environment, pod files and mesh settings,
//! resolved into one value whose parts fit together.

pub mod args;
pub mod env;
pub mod node;
pub mod pod;
pub mod resolve;
mod unsupported;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use names::SpiffeId;
use pki::key::Algorithm;

pub use mesh::ProxyConfig;
pub use resolve::{Inputs, resolve};

/// The Istio release whose agent this one behaves like; told to istiod, which
/// decides by it what a proxy understands.
pub const ISTIO_VERSION: &str = "1.32.0";

/// Everything that was configured, in force until the process ends.
#[derive(Clone, Debug)]
pub struct Config {
    /// Files and sockets.
    pub paths: Paths,
    /// The effective ProxyConfig.
    pub proxy: ProxyConfig,
    /// Who the workload is.
    pub identity: SpiffeId,
    /// Certificates: where from, how long, which key.
    pub certificates: Certificates,
    /// The connection for xDS.
    pub xds: Endpoint,
    /// What Envoy is told about itself.
    pub node: node::Node,
    /// How Envoy is run; `None` when it is not (`DISABLE_ENVOY`).
    pub envoy: Option<Envoy>,
    /// How the agent ends.
    pub drain: Drain,
    /// The status server.
    pub status: Status,
}

/// Files and sockets, relative to the working directory unless told otherwise.
#[derive(Clone, Debug)]
pub struct Paths {
    /// SDS socket.
    pub sds_socket: PathBuf,
    /// ADS socket.
    pub ads_socket: PathBuf,
    /// Envoy's bootstrap.
    pub bootstrap: PathBuf,
    /// Service account token.
    pub token: PathBuf,
}

/// Where the workload's certificate comes from and which one it is.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The CA.
    pub ca: Endpoint,
    /// Lifetime that is asked for.
    pub ttl: Duration,
    /// Part of the lifetime that is left when a new one is asked for.
    pub grace_ratio: f64,
    /// Random part of that.
    pub grace_jitter: f64,
    /// Kind of key.
    pub algorithm: Algorithm,
    /// Signer to be told to the CA; usually empty.
    pub signer: String,
}

/// A server of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`.
    pub address: String,
    /// Name that its certificate must have.
    pub server_name: String,
    /// How the connection is secured.
    pub security: Security,
    /// Headers of every call.
    pub headers: BTreeMap<String, String>,
}

/// How a connection to the control plane is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// TLS with the roots of that file, read for every connection.
    Tls {
        /// PEM file.
        roots: PathBuf,
    },
}

/// How Envoy is run.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// Its program.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its bootstrap, already as JSON; `None` when the user brings a file.
    pub bootstrap: Option<serde_json::Value>,
}

/// How the agent ends after a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Longest wait for connections to end.
    pub limit: Duration,
    /// With `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`: shortest wait, and no limit.
    pub until_idle: Option<Duration>,
    /// Only inbound listeners are drained (sidecars).
    pub inbound_only: bool,
    /// Connections to Envoy can be told by its ports (not with TPROXY, not in gateways).
    pub counts_connections: bool,
    /// Envoy's admin port.
    pub admin_port: u16,
}

/// The status server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its port; 0 picks one.
    pub port: u16,
    /// Envoy's admin port.
    pub admin_port: u16,
    /// Metrics are for this machine only.
    pub metrics_localhost_only: bool,
    /// First address of the pod, which decides the address family.
    pub ip: IpAddr,
}
