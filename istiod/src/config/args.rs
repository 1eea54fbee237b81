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
    /// Send a request to the debug pages of the istiod that runs here, and print the answer.
    Request(Request),
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
    /// Directory of Kubernetes and Istio objects as YAML files, in place of a cluster; followed while running.
    #[arg(long = "configDir", alias = "config-dir", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Kubeconfig file of the cluster; inside a cluster it is not needed.
    #[arg(long, value_name = "FILE", conflicts_with = "config_dir")]
    pub kubeconfig: Option<PathBuf>,

    /// Where services come from; there is one kind.
    #[arg(long, default_value = "Kubernetes", value_parser = ["Kubernetes"], value_name = "NAME")]
    pub registries: String,

    /// Requests a second to the API server, on average.
    #[arg(long = "kubernetesApiQPS", default_value_t = 80.0, value_name = "NUMBER")]
    pub api_qps: f64,

    /// Requests to the API server at once after a quiet time.
    #[arg(long = "kubernetesApiBurst", default_value_t = 160, value_name = "NUMBER")]
    pub api_burst: u32,

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

    /// Webhooks, HTTPS; empty: none. It listens when there is something to serve.
    #[arg(long = "httpsAddr", default_value = ":15017", value_name = "ADDR")]
    pub https: String,

    /// Where `istioctl admin log` asks for levels of the log and changes them; an address of
    /// this machine only: localhost, 127.0.0.1 or ::1.
    #[arg(long = "ctrlz_address", default_value = "localhost", value_name = "ADDR")]
    pub ctrlz_address: String,

    /// Its port; 0: none.
    #[arg(long = "ctrlz_port", default_value_t = 9876, value_name = "PORT")]
    pub ctrlz_port: u16,

    /// Certificate of istiod, if others sign it (with `ENABLE_CA_SERVER=false`).
    #[arg(long = "tlsCertFile", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long = "tlsKeyFile", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// The roots of the mesh then.
    #[arg(long = "caCertFile", value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,

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

    /// Domain of the cluster's services.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub domain: String,

    /// Time after which connections of proxies end, so that they spread over all istiods; never without it.
    #[arg(long = "keepaliveMaxServerConnectionAge", value_name = "DURATION")]
    pub max_connection_age: Option<String>,

    /// Interval of HTTP/2 pings to proxies.
    #[arg(long = "keepaliveInterval", default_value = "30s", value_name = "DURATION")]
    pub keepalive_interval: String,

    /// How long a ping may stay unanswered.
    #[arg(long = "keepaliveTimeout", default_value = "10s", value_name = "DURATION")]
    pub keepalive_timeout: String,
}

/// Flags of `istiod request`.
#[derive(Args, Debug)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path with its query, such as `debug/syncz`.
    pub path: String,
    /// Body; what follows is ignored.
    pub body: Vec<String>,
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
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn what_the_chart_says_is_understood() {
        let template = include_str!("../../../deploy/helm/istiod/templates/deployment.yaml");
        let (_, args) = template.split_once("args:\n").unwrap();
        let (args, _) = args.split_once("ports:").unwrap();
        let given = args.lines().filter_map(|line| line.trim().strip_prefix("- "));
        let filled = given.map(|arg| {
            arg.replace("{{ .Values.global.logging.level }}", "default:info")
                .replace("{{ .Values.global.proxy.clusterDomain }}", "cluster.local")
                .replace("{{ .Values.keepaliveMaxServerConnectionAge }}", "30m")
        });
        let filled: Vec<String> = filled.collect();
        assert!(filled.len() > 4 && filled.iter().all(|arg| !arg.contains("{{")), "{filled:?}");
        let cli = super::Cli::try_parse_from(std::iter::once("istiod".to_owned()).chain(filled)).unwrap();
        let super::Command::Discovery(args) = cli.command else { panic!() };
        let settings = crate::config::env::resolve(&args, |_| None).unwrap();
        assert_eq!(settings.monitoring.port(), 15014);
    }
}
