//! `experimental workload`: workloads outside of Kubernetes, and groups of them.

mod configure;
mod files;
mod group;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;

use crate::args::Global;
use crate::args::workload::{Entry, Group, Workload as Args};
use crate::failure::Result;

/// Writes a group, or the files of a workload.
///
/// # Errors
/// When something is missing, or the cluster does not answer.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    match args {
        Args::Group { command: Group::Create(args) } => {
            Ok(out.write_all(group::create(args, global.namespace.as_deref())?.as_bytes())?)
        }
        Args::Entry { command: Entry::Configure(args) } => configure::run(args, global, out).await,
    }
}

/// Reads `NAME=VALUE` of each.
fn pairs(flag: &str, all: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |one: &String| {
        let (name, value) =
            one.split_once('=').with_context(|| format!("{flag} {one:?}: write NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    all.iter().filter(|one| !one.is_empty()).map(pair).collect()
}
