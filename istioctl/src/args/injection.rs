//! Flags of `experimental injector` and `experimental check-inject`.

use clap::{Args, Subcommand};

/// Examples below the help of `check-inject`.
pub const EXAMPLES: &str = "Examples:
  # Whether a pod has been injected, and why
  istioctl x check-inject details-v1-fcff6c49c-kqnfk.test
  # The same of a pod of a Deployment
  istioctl x check-inject deployment/details-v1 -n test
  # Whether pods with labels would be
  istioctl x check-inject -n test -l app=helloworld,version=v1";

/// What is shown of injectors.
#[derive(Debug, Subcommand)]
pub enum Injector {
    /// List injectors, and the revisions of sidecars in each namespace.
    #[command(after_help = "Example: istioctl x injector list")]
    List,
}

/// Flags of `experimental check-inject`.
#[derive(Args, Debug)]
pub struct CheckInject {
    /// A pod, or what owns one: `[TYPE/]NAME[.NAMESPACE]`.
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub pod: Option<String>,
    /// Labels of pods that are not there yet, NAME=VALUE separated by commas.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "LABELS")]
    pub labels: String,
}
