//! From a changed file to the last proxy's acknowledgement.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Times;
use crate::mesh::Mesh;

// An odd number: the last round leaves v3, and the text itself is a change again.
const RUNS: usize = 15;
const FILE: &str = "reviews-route.yaml";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// Changes a route that every sidecar has.
pub(super) fn run(mesh: &Mesh) -> anyhow::Result<()> {
    let text = mesh.read(FILE)?;
    let mut times = Times::default();
    for round in 0..RUNS {
        let subset = if round % 2 == 0 { "subset: v3" } else { "subset: v1" };
        let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
        mesh.write(FILE, &text.replace("subset: v1", subset))?;
        let last = Mesh::wait("all acknowledgements", || last_ack(mesh, start))?;
        times.add(last - start);
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
    mesh.write(FILE, &text)?;
    Mesh::wait("the end", || last_ack(mesh, start))?;
    times.row("file change to the last of 6 Envoys' ACK (100 ms of it are quiet time)", "≤ 250 ms");
    Ok(())
}

/// When the last proxy accepted routes that were sent after `start`.
fn last_ack(mesh: &Mesh, start: Duration) -> anyhow::Result<Duration> {
    let page = mesh.istiod.page("/debug/syncz")?;
    let rows = page.as_array().context("syncz")?;
    ensure!(rows.len() == mesh.pods.len(), "{} proxies", rows.len());
    let mut last = Duration::ZERO;
    for row in rows {
        let state = &row["resources"][ROUTES];
        let (sent, acked) = (time(&state["sentTime"])?, time(&state["ackedTime"])?);
        ensure!(state["state"] == "SYNCED" && sent > start && acked >= sent, "{}: {state}", row["proxy"]);
        last = last.max(acked);
    }
    Ok(last)
}

/// An RFC 3339 time of UTC as the time since 1970.
fn time(value: &Value) -> anyhow::Result<Duration> {
    let text = value.as_str().context("a time")?;
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?;
    Ok(SystemTime::from(time).duration_since(UNIX_EPOCH)?)
}
