//! Differences from the recorded program that are intended. Each rule says to
//! which cases it belongs and what must be so instead, and that is checked: a
//! listed case is never one that is just not looked at.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Case, Step, state};

/// Reasons by the name of a rule.
const REASONS: &str = include_str!("../../../data/oracle/init-differences.yaml");

/// The rule that gives IPv6 back where it is off (see `guarded`).
const GUARD: &str = "meta nfproto ipv6 return";

#[derive(Clone, Debug, Deserialize)]
struct Reason {
    rule: String,
    reason: String,
}

/// Why a case may differ, if it does so in the way that is listed.
///
/// # Errors
/// A rule is for it, but what it demands is not so.
pub fn reason(case: &Case, program: &Path) -> anyhow::Result<Option<&'static str>> {
    for (name, is_for, check) in RULES {
        if is_for(case) {
            check(case, program).with_context(|| format!("rule {name}"))?;
            return told(name).map(Some);
        }
    }
    Ok(None)
}

/// Whether a rule is for a case, and what it demands then.
type Rule = (&'static str, fn(&Case) -> bool, fn(&Case, &Path) -> anyhow::Result<()>);

const RULES: &[Rule] = &[
    ("converges", is_in_the_way, is_as_on_a_clean_machine),
    ("range-with-dash", has_dash, is_as_with_colon),
    ("mark-in-hexadecimal", has_hexadecimal_mark, is_as_in_decimal),
    ("ipv6-guard", has_ipv6_that_is_off, is_same_but_for_the_guard),
    ("needs-no-program", lacks_nft, is_as_with_nft),
];

fn told(name: &str) -> anyhow::Result<&'static str> {
    let reasons: Vec<Reason> = serde_saphyr::from_str(REASONS).context("init-differences.yaml")?;
    let found = reasons.into_iter().find(|reason| reason.rule == name);
    // A few short texts, once a case.
    found.map(|reason| &*reason.reason.leak()).with_context(|| format!("init-differences.yaml has no {name}"))
}

fn last_run(case: &Case) -> Option<(usize, &Step)> {
    case.steps.iter().enumerate().rev().find(|(_, step)| step.run.is_some())
}

fn flags(case: &Case) -> &[String] {
    last_run(case).and_then(|(_, step)| step.run.as_deref()).unwrap_or_default()
}

/// The recorded run failed since chains of an earlier one were there.
fn is_in_the_way(case: &Case) -> bool {
    let Some((index, _)) = last_run(case) else { return false };
    let earlier = index > 0
        && (case.steps[..index].iter().any(|step| {
            step.run.is_some() || step.sh.as_deref().is_some_and(|script| script.contains("-N ISTIO_"))
        }));
    let wanted = case.istio_defect.as_ref().map_or(&case.expect.steps[index], |defect| &defect.want);
    earlier && wanted.exit == 1 && !flags(case).iter().any(|flag| flag == "--reconcile")
}

fn has_dash(case: &Case) -> bool {
    flags(case).iter().any(|flag| with_colon(flag) != *flag)
}

/// `a-b` as `a:b`.
fn with_colon(flag: &str) -> String {
    let is_ports =
        flag.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b',') && !flag.starts_with('-');
    if is_ports { flag.replace('-', ":") } else { flag.to_owned() }
}

fn has_hexadecimal_mark(case: &Case) -> bool {
    flags(case).iter().any(|flag| in_decimal(flag) != *flag)
}

fn in_decimal(flag: &str) -> String {
    let number = flag.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.map_or_else(|| flag.to_owned(), |number| number.to_string())
}

/// Native rules for both families, on a pod that has IPv6 but must not use it.
fn has_ipv6_that_is_off(case: &Case) -> bool {
    case.netns.addrs.iter().any(|address| address.contains(':'))
        && flags(case).iter().any(|flag| flag == "--native-nftables")
        && !flags(case).iter().any(|flag| flag == "--dual-stack")
}

/// Native rules where there is no program `nft`.
fn lacks_nft(case: &Case) -> bool {
    last_run(case).is_some_and(|(_, step)| step.path.is_some())
        && flags(case).iter().any(|flag| flag == "--native-nftables")
}

fn is_as_with_nft(case: &Case, program: &Path) -> anyhow::Result<()> {
    let mut with_nft = case.clone();
    for step in &mut with_nft.steps {
        step.path = None;
    }
    let machine = case.netns.create()?;
    for step in &case.steps {
        let output = step.perform(&case.netns, &machine, program)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let other = case.netns.create()?;
    for step in &with_nft.steps {
        step.perform(&case.netns, &other, program)?;
    }
    let (state, wanted) = (state(&machine)?, state(&other)?);
    ensure!(state == wanted, "{state:#}\nwanted:\n{wanted:#}");
    Ok(())
}

fn is_as_on_a_clean_machine(case: &Case, program: &Path) -> anyhow::Result<()> {
    same_as(case, program, &|flag| flag.to_owned())
}

fn is_as_with_colon(case: &Case, program: &Path) -> anyhow::Result<()> {
    same_as(case, program, &with_colon)
}

fn is_as_in_decimal(case: &Case, program: &Path) -> anyhow::Result<()> {
    same_as(case, program, &in_decimal)
}

/// All steps leave the same as the last one alone, with flags written so.
fn same_as(case: &Case, program: &Path, write: &dyn Fn(&str) -> String) -> anyhow::Result<()> {
    let machine = case.netns.create()?;
    for step in &case.steps {
        let output = step.perform(&case.netns, &machine, program)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (_, step) = last_run(case).context("nothing is run")?;
    let mut step = step.clone();
    step.run = step.run.map(|flags| flags.iter().map(|flag| write(flag)).collect());
    let clean = case.netns.create()?;
    let output = step.perform(&case.netns, &clean, program)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (state, clean) = (state(&machine)?, state(&clean)?);
    ensure!(state == clean, "{state:#}\nwanted:\n{clean:#}");
    Ok(())
}

/// The recorded state, but for the rule that lets IPv6 pass by.
fn is_same_but_for_the_guard(case: &Case, program: &Path) -> anyhow::Result<()> {
    let machine = case.netns.create()?;
    for (step, recorded) in case.steps.iter().zip(&case.expect.steps) {
        let output = step.perform(&case.netns, &machine, program)?;
        ensure!(output.status.code() == Some(recorded.exit), "{}", output.status);
        let Some(wanted) = &recorded.state else { continue };
        let mut state = state(&machine)?;
        let guards = remove_guards(&mut state);
        ensure!(guards > 0, "no chain has the guard");
        ensure!(state == *wanted, "{state:#}\nwanted:\n{wanted:#}");
    }
    Ok(())
}

/// Takes the guard from the top of each of the kernel's chains.
fn remove_guards(state: &mut Value) -> usize {
    let mut guards = 0;
    for table in state["nft"].as_object_mut().into_iter().flatten().map(|(_, table)| table) {
        for chain in table.as_object_mut().into_iter().flatten().map(|(_, chain)| chain) {
            let has_hook = chain.get("hook").is_some();
            let Some(rules) = chain["rules"].as_array_mut() else { continue };
            if has_hook && rules.first().is_some_and(|rule| rule == GUARD) {
                rules.remove(0);
                guards += 1;
            }
        }
    }
    guards
}
