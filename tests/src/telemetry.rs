//! What takes the telemetry of a mesh: Prometheus, an OpenTelemetry Collector, servers of
//! Envoy's access log service and of Datadog's agent; and our dashboards.

pub mod als;
pub mod collector;
pub mod dashboard;
pub mod datadog;
pub mod prometheus;
pub mod scrape;
mod server;

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// Names the folder of Prometheus and the collector.
const FOLDER: &str = "ISTIO_TEST_TELEMETRY";

/// A program that `scripts/telemetry-tools` brings.
///
/// # Errors
/// Nothing says where it is, or it is not there.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let folder = env::var(FOLDER);
    let folder =
        folder.with_context(|| format!("{FOLDER} does not say where {name} is; use scripts/test"))?;
    let path = PathBuf::from(folder).join(name);
    ensure!(path.is_file(), "{}: no such file; run scripts/telemetry-tools", path.display());
    Ok(path)
}
