//! One run: from the configuration to the kernel.

use std::fs;
use std::io::Write as _;

use anyhow::Context as _;

use crate::config::{Action, BackEnd, Config};
use crate::family::Family;
use crate::iptables::change::change;
use crate::iptables::programs::{Lock, Programs};
use crate::iptables::ruleset::Ruleset;
use crate::plan::Plan;
use crate::work::{Done, Work};
use crate::{capability, nft, validate};

/// A run that ended badly.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was changed, or what was changed is as before.
    Refused(anyhow::Error),
    /// The rules do not do what they should.
    NotValid(validate::Failure),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(error)
    }
}

/// Does what the configuration says.
///
/// # Errors
/// What could not be done; then the rules that were in force are again.
pub fn run(config: &Config) -> Result<(), Failure> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match config.action {
        Action::Skip => tracing::info!("--skip-rule-apply: nothing is changed"),
        Action::DryRun => dry_run(config)?,
        Action::Apply | Action::Cleanup => apply(config)?,
    }
    // There is nothing to probe where nothing was applied, or all was removed.
    if matches!(config.action, Action::Apply | Action::Skip) {
        validate::run(config).map_err(Failure::NotValid)?;
    }
    Ok(())
}

fn apply(config: &Config) -> anyhow::Result<()> {
    capability::check()?;
    capability::pass_on()?;
    let Done { back_end, why, changed, rules, removed } = Work::prepare(config)?.commit()?;
    let what = match (config.action, changed) {
        (Action::Cleanup, true) => "rules removed",
        (Action::Cleanup, false) => "no rules of ours found, nothing to remove",
        (_, true) => "rules applied",
        (_, false) => "rules in force already, nothing changed",
    };
    if !removed.is_empty() {
        tracing::info!("rules of an earlier run removed from {}", removed.join(" and "));
    }
    tracing::info!(back_end, why, rules, "{what}");
    Ok(())
}

/// Prints what would be applied to a system without rules.
fn dry_run(config: &Config) -> anyhow::Result<()> {
    let plan = Plan::of(config);
    let text = match config.back_end {
        BackEnd::Native => format!("# nft -f\n{}", nft::print::ruleset(&nft::lower::lower(&plan))),
        BackEnd::Iptables(variant) => {
            let programs = Programs { variant, lock: Lock::Shared };
            let families = Family::ALL.into_iter().filter_map(|family| {
                let change = change(&Ruleset::default(), &Ruleset::of(&plan, family))?;
                Some(format!("# {} --noflush\n{change}", programs.name(family, "restore")))
            });
            families.collect()
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    if let Some(path) = &config.dry_run_file {
        fs::write(path, &text).with_context(|| format!("DRY_RUN_FILE_PATH: writing {path}"))?;
    }
    Ok(())
}
