//! istiod is away for a while, and the proxies are back as soon as it is.

use std::time::{Duration, Instant};

use anyhow::ensure;
use istio_tests::mesh::Mesh;
use istio_tests::netns;

use super::{Case, load, more, none_failed};

pub(crate) const CASES: &[Case] = &[
    ("proxies_come_back_with_istiod_after_a_short_outage", short),
    ("proxies_come_back_with_istiod_after_a_long_outage", long),
];

/// From istiod being ready to all proxies having accepted what it has: half a
/// second, and more on a busy machine. Envoys by themselves take longer.
const LIMIT: Duration = Duration::from_secs(10);

fn short(mesh: &mut Mesh) -> anyhow::Result<()> {
    outage(mesh, Duration::from_secs(8))
}

/// Envoy alone would wait up to 30 s between two tries by then.
fn long(mesh: &mut Mesh) -> anyhow::Result<()> {
    outage(mesh, Duration::from_secs(25))
}

fn outage(mesh: &mut Mesh, length: Duration) -> anyhow::Result<()> {
    let load = load(mesh)?;
    mesh.istiod.stop()?;
    let start = Instant::now();
    while start.elapsed() < length {
        netns::pause();
    }
    more(&load, 50)?;
    mesh.istiod.start()?;
    let start = Instant::now();
    mesh.wait_synced()?;
    let took = start.elapsed();
    none_failed(load)?;
    eprintln!("in sync {took:?} after istiod was ready");
    ensure!(took <= LIMIT, "in sync {took:?} after istiod was ready");
    Ok(())
}
