//! Flags of `experimental precheck`.

use analysis::Level;
use clap::Args;

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  # Whether Istio can be installed or upgraded
  istioctl x precheck
  # What has changed since a version
  istioctl x precheck --from-version 1.20";

/// Flags of `experimental precheck`.
#[derive(Args, Debug)]
pub struct Precheck {
    /// Say what has changed since this version, 1.MINOR, that concerns this cluster.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "VERSION")]
    pub from_version: String,
    /// log, json or yaml.
    #[arg(short, long, default_value = "log", value_name = "FORMAT")]
    pub output: String,
    /// Level from which on messages are told: Info, Warning or Error.
    #[arg(long, default_value = "Warning", value_name = "LEVEL")]
    pub output_threshold: Level,
    /// Revision of the control plane; all of one cluster are checked alike.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub revision: String,
    /// Kind of terminal; `dumb` has no colors.
    #[arg(long, hide = true, env = "TERM")]
    pub terminal: Option<String>,
    /// Do not look at the cluster: only --from-version counts.
    #[arg(long)]
    pub skip_controlplane: bool,
}
