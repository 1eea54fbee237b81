//! One run: from the configuration to the kernel.

use std::fs;
use std::io::Write as _;

use anyhow::Context as _;

use crate::config::{Action, BackEnd, Config, Variant};
use crate::detect::{self, Choice};
use crate::family::Family;
use crate::iptables::apply::{Step, commit};
use crate::iptables::change::change;
use crate::iptables::programs::{Lock, Programs};
use crate::iptables::ruleset::Ruleset;
use crate::plan::Plan;
use crate::{capability, passthrough, route};

/// A run that ended badly.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was changed, or what was changed is as before.
    Refused(anyhow::Error),
    /// The rules do not do what they should.
    NotValid(String),
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
    Ok(())
}

/// What should be in force.
fn wanted(config: &Config) -> Plan {
    match config.action {
        Action::Cleanup => Plan::default(),
        _ => Plan::of(config),
    }
}

/// Routes before the rules that need them, and away after them.
fn apply(config: &Config) -> anyhow::Result<()> {
    capability::check()?;
    capability::pass_on()?;
    let plan = wanted(config);
    let routes = route::Change::of(&plan, route::live()?);
    routes.add()?;
    if let Err(error) = iptables(config, &plan, variant(config)) {
        routes.undo();
        return Err(error);
    }
    routes.remove()?;
    Ok(())
}

fn iptables(config: &Config, plan: &Plan, variant: Option<Variant>) -> anyhow::Result<()> {
    let addresses = detect::addresses();
    let needs_v6 = plan.has(Family::V6);
    let has_passthrough = addresses.iter().any(|address| *address == passthrough::ADDRESS);
    // A run with IPv6 leaves that address: without it there is nothing of ours to look for.
    let has_v6 = has_passthrough || config.action == Action::Cleanup;
    let lock = Lock::choose(config.cni);
    let Choice { programs, why, v4, v6 } = detect::choose(variant, lock, needs_v6, has_v6)?;

    let live = Family::ALL.into_iter().zip([&v4, &v6]);
    let steps: Vec<Step> =
        live.map(|(family, live)| Step::of(family, live, Ruleset::of(plan, family), config.force)).collect();
    let changed = steps.iter().any(|step| step.text().is_some());
    commit(programs, &steps)?;

    match (needs_v6, has_passthrough) {
        (true, false) => passthrough::add().context("adding the address ::6 to lo")?,
        (false, true) => passthrough::remove().context("removing the address ::6 from lo")?,
        _ => {}
    }
    let variant = match programs.variant {
        Some(Variant::Nft) => "nft",
        Some(Variant::Legacy) => "legacy",
        None => "iptables",
    };
    let what = match (config.action, changed) {
        (Action::Cleanup, true) => "rules removed",
        (Action::Cleanup, false) => "no rules of ours found, nothing to remove",
        (_, true) => "rules applied",
        (_, false) => "rules in force already, nothing changed",
    };
    let [v4, v6] = [0, 1].map(|index| steps.get(index).map_or(0, Step::rules));
    tracing::info!(variant, why, ipv4_rules = v4, ipv6_rules = v6, "{what}");
    Ok(())
}

fn variant(config: &Config) -> Option<Variant> {
    match config.back_end {
        BackEnd::Iptables(variant) => variant,
        BackEnd::Native => None,
    }
}

/// Prints what would be applied to a system without rules.
fn dry_run(config: &Config) -> anyhow::Result<()> {
    let mut text = String::new();
    let plan = wanted(config);
    for family in Family::ALL {
        if let Some(change) = change(&Ruleset::default(), &Ruleset::of(&plan, family)) {
            let programs = Programs { variant: variant(config), lock: Lock::Shared };
            text += &format!("# {} --noflush\n{change}", programs.name(family, "restore"));
        }
    }
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    if let Some(path) = &config.dry_run_file {
        fs::write(path, &text).with_context(|| format!("DRY_RUN_FILE_PATH: writing {path}"))?;
    }
    Ok(())
}
