//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Asks and checks an Istio mesh.
#[derive(Debug, Parser)]
#[command(name = "istioctl", disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what each proxy was sent and has accepted.
    #[command(
        visible_alias = "ps",
        after_help = "Example: istioctl proxy-status --debug-address 10.77.0.2:15014"
    )]
    ProxyStatus(ProxyStatus),
    /// Check files of Kubernetes and Istio objects.
    #[command(visible_alias = "v", after_help = "Example: istioctl validate -f samples/bookinfo")]
    Validate(Validate),
    /// Put sidecars into the workloads of a file.
    #[command(
        after_help = "Example: istioctl kube-inject -f app.yaml --valuesFile values.yaml | kubectl apply -f -"
    )]
    KubeInject(KubeInject),
    /// Print the version.
    Version,
}

/// Flags of `proxy-status`.
#[derive(Args, Debug)]
pub struct ProxyStatus {
    /// Monitoring address of istiod.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:15014")]
    pub debug_address: String,
    /// Only proxies of this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// table, or json for istiod's own answer.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    pub output: String,
}

/// Flags of `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    /// Files and directories; `-` is standard input.
    #[arg(short, long = "filename", required = true, value_delimiter = ',', value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Flags of `kube-inject`.
#[derive(Args, Debug)]
pub struct KubeInject {
    /// File of workloads; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: PathBuf,
    /// Where to write to; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Templates and their choice: the key `config` of the ConfigMap istio-sidecar-injector.
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Values of the chart: the key `values` of that ConfigMap.
    #[arg(long = "valuesFile", value_name = "FILE")]
    pub values: PathBuf,
    /// Mesh configuration; the defaults without it.
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    pub mesh: Option<PathBuf>,
    /// Revision of the control plane.
    #[arg(short, long, default_value = "", value_name = "NAME")]
    pub revision: String,
    /// Whether the cluster's nodes run restartable init containers (1.33): true, false, or auto: no node is known here.
    #[arg(
        long = "nativeSidecars",
        env = "ENABLE_NATIVE_SIDECARS",
        default_value = "auto",
        value_name = "MODE"
    )]
    pub native: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
