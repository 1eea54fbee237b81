//! Numbers of the mesh on this machine. Two things are compared only when both
//! were measured in the same run, turn about.

mod ads;
mod agent;
mod init;
mod kube;
pub mod pilot;
mod push;
mod telemetry;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::mesh::{Mesh, Options};
use crate::program::Programs;
pub use telemetry::Amount;

/// The mesh that is measured.
///
/// # Errors
/// When its name is none.
pub fn options(objects: &Path) -> anyhow::Result<Options> {
    Ok(Options { name: "istio-bench".parse()?, objects: objects.to_owned(), agent_env: BTreeMap::new() })
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// A little of everything.
    Slice,
    /// istio-init in all its modes.
    Init,
    /// istiod beside a cluster.
    Kube,
    /// Envoy with and without the module for Istio's metrics.
    Telemetry,
}

/// Measures and prints a Markdown table.
///
/// # Errors
/// What could not be measured.
pub fn run(what: What, options: &Options, amount: &Amount) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    if what == What::Telemetry {
        return telemetry::run(amount);
    }
    say("| what | median | min .. max | aim |\n|---|---|---|---|");
    match what {
        What::Init => return init::all(&programs),
        What::Kube => return kube::run(&programs),
        What::Slice | What::Telemetry => {}
    }
    init::run(&programs)?;
    let mut mesh = Mesh::start(&programs, options, &mut |_| {})?;
    mesh.wait_synced()?;
    agent::memory(&mesh)?;
    push::run(&mesh)?;
    ads::run(&mesh)?;
    agent::start(&mut mesh)?;
    Ok(())
}

/// Times of one thing.
#[derive(Clone, Debug, Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort_unstable();
    }

    fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).map_or(f64::NAN, Duration::as_secs_f64) * 1000.0
    }

    fn row(&self, what: &str, aim: &str) {
        let millis = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64) * 1000.0;
        say(&format!(
            "| {what} ({} runs) | {:.2} ms | {:.2} .. {:.2} ms | {aim} |",
            self.0.len(),
            self.median(),
            millis(self.0.first()),
            millis(self.0.last())
        ));
    }
}

/// One number divided by another of the same run.
fn ratio(what: &str, one: &Times, other: &Times, aim: &str) {
    say(&format!("| {what} | {:.2} × | | {aim} |", one.median() / other.median()));
}

/// Prints a line at once; nobody is left to be told when it cannot.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").ok();
    out.flush().ok();
}
