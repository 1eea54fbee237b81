//! One run: from the configuration to the kernel.

use std::fs;
use std::io::Write as _;

use anyhow::Context as _;

use crate::config::{Action, BackEnd, Config, Variant};
use crate::detect::{self, Choice};
use crate::family::Family;
use crate::iptables::change::change;
use crate::iptables::programs::Programs;
use crate::iptables::ruleset::Ruleset;
use crate::passthrough;
use crate::plan::Plan;

/// Does what the configuration says.
///
/// # Errors
/// What could not be done; then the rules that were in force are again.
pub fn run(config: &Config) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match config.action {
        Action::Skip => {
            tracing::info!("--skip-rule-apply: nothing is changed");
            Ok(())
        }
        Action::DryRun => dry_run(config),
        Action::Apply | Action::Cleanup => apply(config),
    }
}

/// What should be in force.
fn wanted(config: &Config) -> Plan {
    match config.action {
        Action::Cleanup => Plan::default(),
        _ => Plan::of(config),
    }
}

fn apply(config: &Config) -> anyhow::Result<()> {
    let addresses = detect::addresses();
    let needs_v6 = config.ipv6 && config.action == Action::Apply;
    let has_passthrough = addresses.iter().any(|address| *address == passthrough::ADDRESS);
    // A run with IPv6 leaves that address: without it there is nothing of ours to look for.
    let has_v6 = has_passthrough || config.action == Action::Cleanup;
    let Choice { programs, why, v4, v6 } = detect::choose(variant(config), needs_v6, has_v6)?;

    let plan = wanted(config);
    let mut steps = Vec::new();
    for (family, live) in Family::ALL.into_iter().zip([v4, v6]) {
        let wanted = Ruleset::of(&plan, family);
        let live = live.ours(&wanted);
        let text = match change(&live, &wanted) {
            None if config.force => change(&Ruleset::default(), &wanted),
            other => other,
        };
        steps.push(Step { family, live, wanted, text });
    }
    let changed = steps.iter().any(|step| step.text.is_some());
    commit(programs, &steps)?;

    match (needs_v6, has_passthrough) {
        (true, false) => passthrough::add().context("adding the address ::6 to lo")?,
        (false, true) => passthrough::remove().context("removing the address ::6 from lo")?,
        _ => {}
    }
    let variant = match programs.0 {
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
    let [v4, v6] = [0, 1].map(|index| steps.get(index).map_or(0, |step| step.wanted.len()));
    tracing::info!(variant, why, ipv4_rules = v4, ipv6_rules = v6, "{what}");
    Ok(())
}

fn variant(config: &Config) -> Option<Variant> {
    match config.back_end {
        BackEnd::Iptables(variant) => variant,
        BackEnd::Native => None,
    }
}

/// The change of one family.
struct Step {
    family: Family,
    live: Ruleset,
    wanted: Ruleset,
    text: Option<String>,
}

/// Commits both families or neither.
fn commit(programs: Programs, steps: &[Step]) -> anyhow::Result<()> {
    for (index, step) in steps.iter().enumerate() {
        let Some(text) = &step.text else { continue };
        tracing::debug!("{} --noflush\n{text}", programs.name(step.family, "restore"));
        let Err(error) = programs.commit(step.family, text) else { continue };
        for done in steps.iter().take(index + 1) {
            // Of the failed one, tables before the refused one are in force.
            roll_back(programs, done);
        }
        return Err(error).with_context(|| {
            format!("applying the {:?} rules; the rules that were there before are in force", step.family)
        });
    }
    Ok(())
}

/// Brings back what was in force, from whatever is in force now.
fn roll_back(programs: Programs, step: &Step) {
    let result = programs.read(step.family).and_then(|reading| {
        let live = Ruleset::parse(&reading.text()?).ours(&step.wanted);
        match change(&live, &step.live) {
            Some(text) => programs.commit(step.family, &text),
            None => Ok(()),
        }
    });
    if let Err(error) = result {
        tracing::error!("rolling the {:?} rules back: {error}", step.family);
    }
}

/// Prints what would be applied to a system without rules.
fn dry_run(config: &Config) -> anyhow::Result<()> {
    let mut text = String::new();
    let plan = wanted(config);
    for family in Family::ALL {
        if let Some(change) = change(&Ruleset::default(), &Ruleset::of(&plan, family)) {
            let program = Programs(variant(config)).name(family, "restore");
            text += &format!("# {program} --noflush\n{change}");
        }
    }
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    if let Some(path) = &config.dry_run_file {
        fs::write(path, &text).with_context(|| format!("DRY_RUN_FILE_PATH: writing {path}"))?;
    }
    Ok(())
}
