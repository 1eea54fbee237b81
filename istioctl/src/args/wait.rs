//! Flags of `experimental wait`.

use clap::Args;

use super::xds::Xds;

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  # Until all proxies have a VirtualService as it is in the cluster
  istioctl x wait --for=distribution virtualservice bookinfo.default
  # Until none has it any more
  istioctl x wait --for=delete virtualservice bookinfo.default
  # Until 99 % have it, or two minutes are over
  istioctl x wait --for=distribution --threshold=.99 --timeout=2m virtualservice bookinfo.default";

/// Flags of `experimental wait`.
#[derive(Args, Debug)]
#[command(mut_arg("timeout", |arg| arg.help("Longest wait")))]
pub struct Wait {
    /// Kind of the object, for example virtualservice.
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// The object.
    #[arg(value_name = "NAME[.NAMESPACE]")]
    pub name: String,
    /// distribution or delete.
    #[arg(long = "for", default_value = "distribution", value_name = "CONDITION")]
    pub condition: String,
    /// Generation that the object in the cluster must have at least.
    #[arg(long, value_name = "NUMBER")]
    pub generation: Option<i64>,
    /// The proxy that must have it: NAME.NAMESPACE; all must without it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PROXY")]
    pub proxy: String,
    /// Share of the proxies that must have it.
    #[arg(long, default_value_t = 1.0, value_name = "RATIO")]
    pub threshold: f64,
    /// Say how far it is, and which proxies are waited for.
    #[arg(short, long)]
    pub verbose: bool,
    /// Of whom it is asked; its time is that of the whole wait.
    #[command(flatten)]
    pub xds: Xds,
}
