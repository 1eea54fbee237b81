//! What the agent runs with: flags, environment, pod files and mesh settings,
//! resolved into one value whose parts fit together.

pub mod ads;
pub mod args;
pub mod certificates;
pub mod env;
pub mod node;
pub mod platform;
pub mod pod;
pub mod resolve;
pub mod sds;
pub mod status;
mod unsupported;

use std::path::PathBuf;
use std::time::Duration;

use names::SpiffeId;

use crate::envoy::bootstrap::services::Address;
use crate::envoy::module::Module;
use crate::grpc_bootstrap;

pub use certificates::{Certificates, Endpoint, Security, Source};
pub use mesh::ProxyConfig;
pub use resolve::{Inputs, resolve};
pub use sds::Sds;
pub use status::Status;

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
    /// Secrets for Envoy, and who may use the agent's sockets.
    pub sds: Sds,
    /// The connection for xDS.
    pub xds: Endpoint,
    /// Streams over it.
    pub ads: ads::Settings,
    /// What Envoy is told about itself.
    pub node: node::Node,
    /// How Envoy is run; `None` when it is not (`DISABLE_ENVOY`).
    pub envoy: Option<Envoy>,
    /// Bootstrap of gRPC's own xDS client; `None` when it is not wanted.
    pub grpc: Option<grpc_bootstrap::Settings>,
    /// What has to be found out while the agent starts.
    pub late: Late,
    /// How the agent ends.
    pub drain: Drain,
    /// The status server.
    pub status: Status,
    /// The agent ends when this file appears (`ISTIO_AGENT_EXIT_FILE`).
    pub exit_file: Option<PathBuf>,
    /// The DNS proxy, if there is one.
    pub dns: Option<crate::dns::Settings>,
    /// Wasm modules.
    pub wasm: crate::ads::wasm::Settings,
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

/// Stands for a value that nobody gets to see.
pub const HIDDEN: &str = "[hidden]";
/// Flag of Envoy whose value is merged over its bootstrap.
const CONFIG_YAML: &str = "--config-yaml";

/// How Envoy is run.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// Its program.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beside the agent's own.
    pub env: Vec<(String, String)>,
    /// Its bootstrap, already as JSON; `None` when the user brings a file.
    pub bootstrap: Option<serde_json::Value>,
}

impl Envoy {
    /// Its arguments as anybody may see them: what is merged over the bootstrap
    /// may hold secrets.
    #[must_use]
    pub fn shown_args(&self) -> Vec<&str> {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        if let Some(at) = args.iter().position(|arg| *arg == CONFIG_YAML)
            && let Some(value) = args.get_mut(at + 1)
        {
            *value = HIDDEN;
        }
        args
    }
}

/// What goes into a bootstrap and has to be found out first.
#[derive(Clone, Debug)]
pub struct Late {
    /// Where the machine runs.
    pub platform: platform::Plan,
    /// Server for statistics whose name has to be looked up.
    pub statsd: Option<Address>,
    /// Our module, which Envoy may or may not take.
    pub module: Option<Module>,
}

/// How the agent ends after a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Shortest wait, also when nothing is open.
    pub minimum: Duration,
    /// Longest wait for connections to end; `None` waits for the last one.
    pub limit: Option<Duration>,
    /// Envoy's own counters tell what is open (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    pub asks_envoy: bool,
    /// Only inbound listeners are drained (sidecars).
    pub inbound_only: bool,
    /// Connections to Envoy can be told by its ports (not with TPROXY or without redirection).
    pub counts_connections: bool,
    /// All ports of the pod are Envoy's.
    pub is_gateway: bool,
    /// Envoy's admin port.
    pub admin_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_over_the_bootstrap_is_not_shown() {
        let args = ["-l", "info", CONFIG_YAML, "{token: x}", "--concurrency", "1"];
        let args = args.map(str::to_owned).to_vec();
        let envoy = Envoy { binary: PathBuf::new(), args, env: Vec::new(), bootstrap: None };
        assert_eq!(envoy.shown_args(), ["-l", "info", CONFIG_YAML, HIDDEN, "--concurrency", "1"]);
    }
}
