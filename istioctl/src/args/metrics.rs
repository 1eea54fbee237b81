//! Flags of `experimental metrics`.

use std::time::Duration;

use clap::Args;

/// Shown at the end of the help.
pub const EXAMPLES: &str = "Examples: istioctl x metrics productpage-v1\n          \
    istioctl x metrics productpage-v1.shop reviews-v1.shop --duration 2m\n          \
    istioctl x metrics productpage-v1 --prometheus-url http://localhost:9090";

/// Flags of `experimental metrics`.
#[derive(Args, Debug)]
pub struct Metrics {
    /// Workloads; of a name without a namespace, those of all namespaces.
    #[arg(value_name = "NAME[.NAMESPACE]")]
    pub workloads: Vec<String>,
    /// How far back rates are counted.
    #[arg(short, long, default_value = "1m0s", value_name = "TIME", value_parser = super::duration)]
    pub duration: Duration,
    /// Ask this Prometheus, not the one beside the control plane.
    #[arg(long, value_name = "URL")]
    pub prometheus_url: Option<String>,
}
