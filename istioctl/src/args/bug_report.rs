//! Flags of `bug-report`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Help below the flags.
pub const EXAMPLES: &str =
    "A selection is NAMESPACES/DEPLOYMENTS/PODS/LABELS/ANNOTATIONS/CONTAINERS. Each part is a list with \
commas, may be left out, and must fit in one of its items (labels and annotations, NAME=VALUE: in all); `*` \
stands for any text. What fits one --include and no --exclude is in the report.

Examples:
  # Everything, but what is secret
  istioctl bug-report
  # Of two namespaces, and there of pods whose names begin with web
  istioctl bug-report --include 'shop,stock//web*'
  # The log of the last hour
  istioctl bug-report --duration 1h --output-dir /tmp";

/// Flags of `bug-report`.
#[derive(Args, Debug)]
pub struct BugReport {
    /// Which pods are in it; all without it. May be repeated.
    #[arg(long, value_name = "SELECTION")]
    pub include: Vec<String>,
    /// Which pods of these are not in it. May be repeated.
    #[arg(
        long,
        default_value = "kube-node-lease,kube-public,kube-system,local-path-storage",
        value_name = "SELECTION"
    )]
    pub exclude: Vec<String>,
    /// First line of logs that is in it (RFC 3339); --duration says it, too.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIME")]
    pub start_time: String,
    /// Last line of logs that is in it (RFC 3339); now without it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIME")]
    pub end_time: String,
    /// How long before --end-time logs begin; from their begin without it.
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub duration: Option<Duration>,
    /// Lines of each log at most; 0 for all.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub tail: u64,
    /// Errors that make a log important, patterns separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub critical_errs: Vec<String>,
    /// Errors that do not count, patterns separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub ignore_errs: Vec<String>,
    /// Contents of Secrets are in it, and nothing is left out of anything else.
    #[arg(long)]
    pub full_secrets: bool,
    /// Leave out objects of the cluster.
    #[arg(long)]
    pub skip_cluster_dump: bool,
    /// Leave out what `istioctl analyze` says.
    #[arg(long)]
    pub skip_analyze: bool,
    /// Leave out what Envoys say.
    #[arg(long)]
    pub skip_proxy_debug: bool,
    /// Without effect: connections are on Envoy's page `clusters`.
    #[arg(long)]
    pub skip_netstat: bool,
    /// Without effect: images of memory hold keys, and are never in it.
    #[arg(long)]
    pub skip_coredumps: bool,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = super::proxy_config::ADMIN_PORT, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
    /// Namespace of the control plane, as -i.
    #[arg(long = "istio-namespace", value_name = "NAME")]
    pub control_plane: Option<String>,
    /// Longest time for all of it; what has not come then is left out.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = super::duration)]
    pub timeout: Duration,
    /// Questions at once; 32 without it.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    pub rq_concurrency: usize,
    /// Say what would be asked, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Settings in a file of YAML, which go over flags.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Directory of the archive while it grows.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Directory of the archive, bug-report.tar.gz; this one without it.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}
