//! Both families from the rules in force to the wanted ones, or neither.

use super::change::{change, rewrite};
use super::programs::{self, Programs};
use super::ruleset::Ruleset;
use crate::family::Family;

/// The rules of a family could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("applying the {family:?} rules; the rules that were there before are in force")]
pub struct Error {
    family: Family,
    source: programs::Error,
}

/// The change of one family.
#[derive(Debug)]
pub struct Step {
    family: Family,
    live: Ruleset,
    wanted: Ruleset,
    text: Option<String>,
}

impl Step {
    /// What leads from the rules in force, of which only ours count, to the
    /// wanted ones; with `force` they are written in any case.
    pub fn of(family: Family, live: &Ruleset, wanted: Ruleset, force: bool) -> Self {
        let live = live.ours(&wanted);
        let text = if force { rewrite(&live, &wanted) } else { change(&live, &wanted) };
        Self { family, live, wanted, text }
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Number of rules that are wanted.
    pub fn rules(&self) -> usize {
        self.wanted.len()
    }

    /// What iptables-restore is given, if anything changes.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Commits all steps or none.
///
/// # Errors
/// What a program says about the step that failed.
pub fn commit(programs: Programs, steps: &[Step]) -> Result<(), Error> {
    for (index, step) in steps.iter().enumerate() {
        let Some(text) = &step.text else { continue };
        tracing::debug!("{} --noflush\n{text}", programs.name(step.family, "restore"));
        let Err(source) = programs.commit(step.family, text) else { continue };
        for done in steps.iter().take(index + 1) {
            // Of the failed one, tables before the refused one are in force.
            roll_back(programs, done);
        }
        return Err(Error { family: step.family, source });
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
