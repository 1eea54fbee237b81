//! What one run has to do, found out by reading only: it can be told
//! (`istio-init status`) or done.

use anyhow::Context as _;

use crate::config::{Action, BackEnd, Config, Variant};
use crate::detect::{self, Choice};
use crate::family::Family;
use crate::iptables::apply::{Step, commit};
use crate::iptables::programs::{Lock, Programs};
use crate::iptables::ruleset::Ruleset;
use crate::plan::Plan;
use crate::{capability, nft, passthrough, route};

/// Modules that newer iptables programs do without.
const BUILT_IN: [&str; 2] = ["xt_tcpudp", "xt_mark"];

/// From what is in force to what a configuration asks for.
#[derive(Debug)]
pub struct Work {
    plan: Plan,
    force: bool,
    lock: Lock,
    rules: Rules,
    routes: route::Change,
    /// Whether `::6` has to be added to `lo`, or removed.
    passthrough: Option<bool>,
}

/// The rules, by who writes them.
#[derive(Debug)]
enum Rules {
    /// By the iptables programs, and why these.
    Iptables { programs: Programs, why: &'static str, steps: Vec<Step> },
    /// By ourselves, in nf_tables.
    Native,
    /// All go; those of legacy iptables by its programs.
    Nothing { legacy: Option<(Programs, Vec<Step>)> },
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// Who wrote the rules.
    pub back_end: &'static str,
    /// Why it was chosen.
    pub why: &'static str,
    /// Whether anything was different.
    pub changed: bool,
    /// Rules in force.
    pub rules: usize,
    /// Back ends that held rules of ours, which are gone now.
    pub removed: Vec<&'static str>,
}

impl Work {
    /// Finds out what has to be done.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn prepare(config: &Config) -> anyhow::Result<Self> {
        let plan = match config.action {
            Action::Cleanup => Plan::default(),
            _ => Plan::of(config),
        };
        let has_passthrough = detect::addresses().iter().any(|address| *address == passthrough::ADDRESS);
        let lock = Lock::choose(config.cni);
        let rules = match config.back_end {
            _ if config.action == Action::Cleanup => Rules::Nothing { legacy: legacy(lock)? },
            BackEnd::Native => Rules::Native,
            BackEnd::Iptables(variant) => {
                // A run with IPv6 leaves that address: without it there is nothing of ours to look for.
                let needs_v6 = plan.has(Family::V6);
                let Choice { programs, why, v4, v6 } =
                    detect::choose(variant, lock, needs_v6, has_passthrough)?;
                let live = Family::ALL.into_iter().zip([&v4, &v6]);
                let wanted = |family| Ruleset::of(&plan, family);
                let steps =
                    live.map(|(family, live)| Step::of(family, live, wanted(family), config.force)).collect();
                Rules::Iptables { programs, why, steps }
            }
        };
        let wants_passthrough = plan.has(Family::V6);
        Ok(Self {
            routes: route::Change::of(&plan, route::live()?),
            passthrough: (wants_passthrough != has_passthrough).then_some(wants_passthrough),
            force: config.force,
            lock,
            plan,
            rules,
        })
    }

    /// What would change, each part with its name; nothing when all is as it
    /// should be.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn pending(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut changes = Vec::new();
        match &self.rules {
            Rules::Iptables { programs, steps, .. } => changes.extend(texts(*programs, steps)),
            Rules::Native => {
                let change = nft::pending(&self.plan)?;
                changes.extend(change.map(|change| ("nftables".to_owned(), change)));
            }
            Rules::Nothing { legacy } => {
                changes.extend(nft::pending(&self.plan)?.map(|change| ("nftables".to_owned(), change)));
                changes.extend(legacy.iter().flat_map(|(programs, steps)| texts(*programs, steps)));
            }
        }
        if !self.routes.is_empty() {
            changes.push(("routes".to_owned(), self.routes.to_string()));
        }
        if let Some(is_added) = self.passthrough {
            let change = if is_added { "add ::6 to lo" } else { "remove ::6 from lo" };
            changes.push(("addresses".to_owned(), change.to_owned()));
        }
        Ok(changes)
    }

    /// Does it: routes before the rules that need them, and away after them.
    ///
    /// # Errors
    /// What was refused; then what was in force before is again.
    pub fn commit(self) -> anyhow::Result<Done> {
        let changes_more = !self.routes.is_empty() || self.passthrough.is_some();
        self.routes.add()?;
        let mut done = match self.commit_rules() {
            Ok(done) => done,
            Err(error) => {
                self.routes.undo();
                return Err(error);
            }
        };
        done.changed |= changes_more || !done.removed.is_empty();
        self.routes.remove()?;
        match self.passthrough {
            Some(true) => passthrough::add().context("adding the address ::6 to lo")?,
            Some(false) => passthrough::remove().context("removing the address ::6 from lo")?,
            None => {}
        }
        Ok(done)
    }

    fn commit_rules(&self) -> anyhow::Result<Done> {
        match &self.rules {
            Rules::Iptables { programs, why, steps } => {
                let changed = steps.iter().any(|step| step.text().is_some());
                match programs.variant {
                    Some(Variant::Legacy) if changed => capability::check_legacy()?,
                    Some(Variant::Nft) if changed => self.preflight()?,
                    _ => {}
                }
                commit(*programs, steps).map_err(|error| self.explain(error.into(), false))?;
                let removed =
                    take_over(*programs).context("the new rules are in force; removing older ones")?;
                let rules = steps.iter().map(Step::rules).sum();
                Ok(Done { back_end: name(*programs), why, changed, rules, removed })
            }
            Rules::Native => {
                let nft::Outcome { changed, rules } =
                    nft::apply(&self.plan, self.force).map_err(|error| self.explain(error.into(), true))?;
                let mut removed = Vec::new();
                if remove_legacy(self.lock).context("the new rules are in force; removing older ones")? {
                    removed.push("iptables-legacy");
                }
                Ok(Done { back_end: "nftables", why: "--native-nftables", changed, rules, removed })
            }
            Rules::Nothing { legacy } => {
                let mut changed =
                    none_without_nf_tables(nft::apply(&self.plan, false).map(|done| done.changed))?;
                if let Some((programs, steps)) = legacy {
                    commit(*programs, steps)?;
                    changed |= steps.iter().any(|step| step.text().is_some());
                }
                let (back_end, why) = ("all", "--cleanup-only");
                Ok(Done { back_end, why, changed, rules: 0, removed: Vec::new() })
            }
        }
    }

    /// Asks the kernel for what iptables-nft will need of it: tables are commits
    /// of their own, and none should be made when a later one must fail. (Native
    /// rules are one batch, which the kernel takes or refuses as a whole.)
    fn preflight(&self) -> anyhow::Result<()> {
        let missing = match nft::features::missing(&self.plan, false) {
            Ok(missing) => missing,
            Err(error) => {
                tracing::debug!("the kernel does not tell what it has: {error}");
                return Ok(());
            }
        };
        let needed = missing.iter().filter(|feature| !BUILT_IN.contains(&feature.module));
        let needed: Vec<String> = needed.map(ToString::to_string).collect();
        anyhow::ensure!(needed.is_empty(), "{}; nothing was changed", needed.join("; "));
        Ok(())
    }

    /// Adds what the kernel lacks to what it said, which seldom names it.
    fn explain(&self, error: anyhow::Error, is_native: bool) -> anyhow::Error {
        match nft::features::missing(&self.plan, is_native) {
            Ok(missing) if !missing.is_empty() => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                error.context(missing.join("; "))
            }
            _ => error,
        }
    }
}

fn name(programs: Programs) -> &'static str {
    match programs.variant {
        Some(Variant::Nft) => "iptables-nft",
        Some(Variant::Legacy) => "iptables-legacy",
        None => "iptables",
    }
}

fn texts(programs: Programs, steps: &[Step]) -> impl Iterator<Item = (String, String)> {
    let change = move |step: &Step| {
        let text = step.text()?.to_owned();
        Some((format!("{} --noflush", programs.name(step.family(), "restore")), text))
    };
    steps.iter().filter_map(change)
}

/// Removes what other back ends than these programs hold.
fn take_over(programs: Programs) -> anyhow::Result<Vec<&'static str>> {
    let mut removed = Vec::new();
    if programs.variant == Some(Variant::Legacy) {
        if none_without_nf_tables(nft::apply(&Plan::default(), false).map(|done| done.changed))? {
            removed.push("nf_tables");
        }
        return Ok(removed);
    }
    if none_without_nf_tables(nft::remove_native())? {
        removed.push("nftables");
    }
    if remove_legacy(programs.lock)? {
        removed.push("iptables-legacy");
    }
    Ok(removed)
}

/// A kernel without nf_tables holds no rules in it; who may not ask has not
/// written any either.
fn none_without_nf_tables(result: Result<bool, nft::Error>) -> Result<bool, nft::Error> {
    match result {
        Err(nft::Error::Absent) => Ok(false),
        other => other,
    }
}

/// Removes our rules from legacy iptables, if it has any.
fn remove_legacy(lock: Lock) -> anyhow::Result<bool> {
    let Some((programs, steps)) = legacy(lock)? else { return Ok(false) };
    commit(programs, &steps)?;
    Ok(steps.iter().any(|step| step.text().is_some()))
}

/// What legacy iptables holds of ours, to be removed. Without its programs
/// nothing can be done about it.
fn legacy(lock: Lock) -> anyhow::Result<Option<(Programs, Vec<Step>)>> {
    // Asking would load legacy tables where there are none.
    if !detect::has_legacy_tables() {
        return Ok(None);
    }
    let programs = Programs { variant: Some(Variant::Legacy), lock };
    let mut steps = Vec::new();
    for family in Family::ALL {
        match programs.read(family).and_then(|reading| reading.text()) {
            Ok(text) => steps.push(Step::of(family, &Ruleset::parse(&text), Ruleset::default(), false)),
            Err(error) if error.is_missing() => {
                tracing::warn!("legacy iptables holds rules, maybe of ours, but {error}");
                return Ok(None);
            }
            // It has no such family.
            Err(error) => tracing::debug!("{error}"),
        }
    }
    Ok(Some((programs, steps)))
}
