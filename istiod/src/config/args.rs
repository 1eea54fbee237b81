//! The command line. Flag names are those of Istio's `pilot-discovery`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The control plane of the mesh.
#[derive(Debug, Parser)]
#[command(name = "istiod", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Logging.
    #[command(flatten)]
    pub log: Log,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve configuration and certificates to the proxies of the mesh.
    Discovery(Box<Discovery>),
    /// Print a token that lets a workload without Kubernetes join the mesh.
    Token(Token),
    /// Print the version.
    Version,
}

/// Logging flags, the same for every command.
#[derive(Args, Debug)]
pub struct Log {
    /// Levels by scope: `default:info,ads:debug`.
    #[arg(long = "log_output_level", global = true, default_value = "default:info", value_name = "LEVELS")]
    pub output_level: String,

    /// One JSON object a line.
    #[arg(long = "log_as_json", global = true)]
    pub as_json: bool,
}

/// Flags of `istiod discovery`.
#[derive(Args, Debug)]
pub struct Discovery {
    /// Directory of Kubernetes and Istio objects as YAML files; followed while running.
    #[arg(long = "configDir", alias = "config-dir", value_name = "DIR")]
    pub config_dir: PathBuf,

    /// Directory that keeps the self-signed CA and the token key (mode 0700).
    #[arg(long = "state-dir", default_value = "/var/lib/istio/istiod", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// xDS and certificates over TLS.
    #[arg(long = "secureGRPCAddr", default_value = ":15012", value_name = "ADDR")]
    pub secure_grpc: String,

    /// xDS in plaintext, without authentication; off unless given (`:15010`).
    #[arg(long = "grpcAddr", default_value = "", value_name = "ADDR")]
    pub grpc: String,

    /// Metrics and debug pages.
    #[arg(long = "monitoringAddr", default_value = ":15014", value_name = "ADDR")]
    pub monitoring: String,

    /// Readiness and debug pages.
    #[arg(long = "httpAddr", default_value = ":8080", value_name = "ADDR")]
    pub http: String,

    /// Mesh configuration file (YAML); defaults apply when it is not there.
    #[arg(long = "meshConfig", default_value = "./etc/istio/config/mesh", value_name = "FILE")]
    pub mesh_config: PathBuf,

    /// Networks of the mesh (YAML); there is one when the file is not there.
    #[arg(long = "networksConfig", default_value = "./etc/istio/config/meshNetworks", value_name = "FILE")]
    pub networks_config: PathBuf,

    /// Namespace of the control plane [env: POD_NAMESPACE]
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of the cluster [env: CLUSTER_ID]
    #[arg(long = "clusterID", value_name = "NAME")]
    pub cluster_id: Option<String>,

    /// Time that open streams have to end at shutdown.
    #[arg(long = "shutdownDuration", default_value = "10s", value_name = "DURATION")]
    pub shutdown: String,

    /// Interval of HTTP/2 pings to proxies.
    #[arg(long = "keepaliveInterval", default_value = "30s", value_name = "DURATION")]
    pub keepalive_interval: String,

    /// How long a ping may stay unanswered.
    #[arg(long = "keepaliveTimeout", default_value = "10s", value_name = "DURATION")]
    pub keepalive_timeout: String,
}

/// Flags of `istiod token`.
#[derive(Args, Debug)]
pub struct Token {
    /// Whom the token stands for.
    #[arg(long = "service-account", value_name = "NAMESPACE/NAME")]
    pub service_account: String,

    /// The state directory of the istiod that will check the token.
    #[arg(long = "state-dir", default_value = "/var/lib/istio/istiod", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// Who may accept it.
    #[arg(long, default_value = "istio-ca")]
    pub audience: String,

    /// How long it is valid.
    #[arg(long, default_value = "12h", value_name = "DURATION")]
    pub ttl: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
