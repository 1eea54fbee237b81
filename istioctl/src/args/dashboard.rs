//! Flags of `dashboard`.

use clap::{Args, ValueEnum};

use super::switch::Switch as _;

/// Flags of `dashboard`.
#[derive(Args, Debug)]
pub struct Dashboard {
    /// Of what.
    pub what: What,
    /// The pod of envoy and proxy: `[TYPE/]NAME[.NAMESPACE]`.
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub pod: Option<String>,
    /// Local address.
    #[arg(long, default_value = "localhost", value_name = "HOST")]
    pub address: String,
    /// Local port; 0 for any.
    #[arg(short, long, default_value_t = 0, value_name = "PORT")]
    pub port: u16,
    /// Port of the page inside of the mesh, if it is another one.
    #[arg(long, value_name = "PORT")]
    pub ui_port: Option<u16>,
    /// Open it in a browser.
    #[arg(long, default_value_t = true, switch())]
    pub browser: bool,
}

/// Pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Admin pages of a pod's Envoy.
    Envoy,
    /// Metrics of a pod's agent.
    Proxy,
    /// Debug pages of istiod.
    #[value(aliases = ["istiod-debug", "controlz"])]
    Istiod,
    /// Prometheus.
    Prometheus,
    /// Grafana.
    Grafana,
    /// Kiali.
    Kiali,
    /// Jaeger.
    Jaeger,
    /// Zipkin.
    Zipkin,
}
