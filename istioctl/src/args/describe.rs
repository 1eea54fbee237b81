//! Flags of `experimental describe`.

use clap::{Args, Subcommand};

use super::proxy_config::ADMIN_PORT;

/// Shown at the end of the help.
pub const EXAMPLES: &str = "Examples: istioctl x describe pod web-0.shop\n          \
    istioctl x describe service web -n shop";

/// What is described.
#[derive(Debug, Subcommand)]
pub enum Describe {
    /// Describe a pod and the configuration that it is under.
    #[command(
        visible_alias = "po",
        after_help = "Examples: istioctl x describe pod web-0.shop\n          istioctl x describe pod web-0 -n shop --ignoreUnmeshed"
    )]
    Pod(What),
    /// Describe a Service and the configuration that it is under.
    #[command(
        visible_alias = "svc",
        after_help = "Examples: istioctl x describe service web.shop\n          istioctl x describe svc istio-ingressgateway -n istio-system"
    )]
    Service(What),
}

/// Flags of `experimental describe pod` and `service`.
#[derive(Args, Debug)]
pub struct What {
    /// Its name.
    #[arg(value_name = "NAME[.NAMESPACE]")]
    pub name: Option<String>,
    /// Do not warn of pods without a sidecar.
    #[arg(long = "ignoreUnmeshed")]
    pub ignore_unmeshed: bool,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = ADMIN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
}
