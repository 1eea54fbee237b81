//! Flags of `experimental authz`.

use clap::{Args, Subcommand};

use super::proxy_config::{ADMIN_PORT, Target};

/// Shown at the end of the help.
pub const EXAMPLES: &str = "Examples: istioctl x authz check web-0.shop\n          \
    istioctl x authz check deployment/web.shop\n          \
    istioctl x authz check --file config_dump.json";

/// What of policies is looked at.
#[derive(Debug, Subcommand)]
pub enum Authz {
    /// Show which policies the Envoy of a pod has.
    #[command(after_help = EXAMPLES)]
    Check(Check),
}

/// Flags of `experimental authz check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// Show policies, too, that are only tried and refuse nothing (dry run).
    #[arg(short, long)]
    pub all: bool,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = ADMIN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
}
