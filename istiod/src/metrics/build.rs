//! What istiod is, and how long it runs.

use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Tells the metrics `pilot_info`, `istio_build` and `istiod_uptime_seconds`.
#[derive(Debug)]
pub struct Build {
    started: Instant,
}

impl Default for Build {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let one = ConstGauge::<i64>::new(1);
        let mut info = encoder.encode_descriptor(
            "pilot_info",
            "Version of the control plane",
            None,
            one.metric_type(),
        )?;
        one.encode(info.encode_family(&[("version", VERSION)])?)?;
        let mut build =
            encoder.encode_descriptor("istio_build", "Version of this component", None, one.metric_type())?;
        one.encode(build.encode_family(&[("component", "pilot"), ("tag", VERSION)])?)?;
        let uptime = ConstGauge::new(self.started.elapsed().as_secs_f64());
        let help = "Seconds since istiod has started";
        uptime.encode(encoder.encode_descriptor("istiod_uptime_seconds", help, None, uptime.metric_type())?)
    }
}
