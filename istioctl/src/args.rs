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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
