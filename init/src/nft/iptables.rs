//! What a run in iptables mode leaves in the tables of iptables-nft: chains
//! with our prefix and, in chains of others, the rules that lead there.

use std::collections::HashMap;

use super::expr::{Comparison, Expr, Meta, Verdict};
use super::read::{LiveRule, rules};
use super::ruleset::{Chain, Rule};
use super::socket::{Error, Socket};
use crate::plan::{PREFIX, TO_ITSELF};

/// Tables of iptables that our rules may be in.
const TABLES: [&str; 5] = ["nat", "mangle", "raw", "filter", "security"];
/// Families `ip` and `ip6`.
const FAMILIES: [u8; 2] = [2, 10];
/// Its number as a transport protocol.
const TCP: u8 = 6;

/// What is ours in one table of iptables-nft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remnant {
    pub(super) family: u8,
    pub(super) table: String,
    /// Chains that are ours.
    pub(super) chains: Vec<String>,
    /// Rules of ours in chains that are not: chain and handle.
    pub(super) rules: Vec<(String, u64)>,
}

/// Whether it is a table that iptables-nft writes.
pub(super) fn may_hold_ours(family: u8, table: &str) -> bool {
    FAMILIES.contains(&family) && TABLES.contains(&table)
}

/// What is ours in a table with these chains.
pub(super) fn read(
    socket: &mut Socket,
    family: u8,
    table: String,
    chains: &[Chain],
) -> Result<Option<Remnant>, Error> {
    let ours: Vec<String> = chains
        .iter()
        .filter(|chain| chain.name.starts_with(PREFIX))
        .map(|chain| chain.name.clone())
        .collect();
    // No rule can lead to a chain that is not there.
    if ours.is_empty() {
        return Ok(None);
    }
    let live = rules(socket, family, &table, &HashMap::new())?;
    let mut remnant = Remnant { family, table, chains: ours, rules: Vec::new() };
    for chain in chains.iter().filter(|chain| !chain.name.starts_with(PREFIX)) {
        let rules: Vec<&LiveRule> = live.iter().filter(|rule| rule.chain == chain.name).collect();
        let is_mangle = remnant.table == "mangle";
        let is_ours = our_rules(&rules.iter().map(|rule| &rule.rule).collect::<Vec<_>>(), is_mangle);
        let ours = rules.iter().zip(is_ours).filter(|(_, is_ours)| *is_ours);
        remnant.rules.extend(ours.map(|(rule, _)| (chain.name.clone(), rule.handle)));
    }
    Ok(Some(remnant))
}

/// Which rules of a chain are ours: jumps into our chains, those of TPROXY,
/// and the exclusions of interfaces next to them.
fn our_rules(rules: &[&Rule], is_mangle: bool) -> Vec<bool> {
    let is_ours = |rule: &Rule| jump(rule).is_some() || (is_mangle && is_tproxy(rule));
    let mut ours: Vec<bool> = rules.iter().map(|rule| is_ours(rule)).collect();
    // Exclusions stand before a jump; those of virtual machines (`-k`) behind
    // the jump to the redirection.
    for index in (1..rules.len()).rev() {
        ours[index - 1] |= ours[index] && is_exclusion(rules[index - 1]);
    }
    let mut is_behind = false;
    for (index, rule) in rules.iter().enumerate() {
        is_behind = jump(rule) == Some("REDIRECT") || (is_behind && is_exclusion(rule));
        ours[index] |= is_behind;
    }
    ours
}

/// The chain of ours that a rule leads to, without the prefix.
fn jump(rule: &Rule) -> Option<&str> {
    match rule.last() {
        Some(Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => chain.strip_prefix(PREFIX),
        _ => None,
    }
}

/// The rules that TPROXY has in the kernel's own chains, whatever its mark (see
/// `marks_ours` of the iptables back end).
fn is_tproxy(rule: &Rule) -> bool {
    let is_tcp = rule
        .windows(2)
        .any(|pair| *pair == [Expr::Meta(Meta::Protocol), Expr::Compare(Comparison::Equal, vec![TCP])]);
    let has = |name: &str| rule.iter().any(|expr| *expr == Expr::Unknown(name.to_owned()));
    let has_mark = rule.contains(&Expr::Meta(Meta::Mark)) || has("match mark");
    let leaves_by_lo = rule.contains(&Expr::Meta(Meta::Output))
        && rule
            .iter()
            .any(|expr| matches!(expr, Expr::Compare(Comparison::Equal, name) if name.starts_with(b"lo\0")));
    match rule.last() {
        Some(Expr::Unknown(target)) if target == "target CONNMARK" => {
            is_tcp && (has_mark || has("match connmark")) && !leaves_by_lo
        }
        Some(Expr::Unknown(target)) if *target == format!("target MARK {TO_ITSELF:#x}") => {
            is_tcp && leaves_by_lo && has("match owner")
        }
        Some(Expr::Verdict(Verdict::Return)) => is_tcp && leaves_by_lo && has_mark,
        _ => false,
    }
}

/// `-i IF -j RETURN` or `-o IF -j RETURN`.
fn is_exclusion(rule: &Rule) -> bool {
    matches!(
        rule[..],
        [
            Expr::Meta(Meta::Input | Meta::Output),
            Expr::Compare(Comparison::Equal, _),
            Expr::Counter,
            Expr::Verdict(Verdict::Return)
        ]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(interface: &str, verdict: Verdict) -> Rule {
        let mut rule = Vec::new();
        if !interface.is_empty() {
            rule.push(Expr::Meta(Meta::Input));
            rule.push(Expr::Compare(Comparison::Equal, interface.as_bytes().to_vec()));
        }
        rule.extend([Expr::Counter, Expr::Verdict(verdict)]);
        rule
    }

    #[test]
    fn tells_our_rules_from_others() {
        let jump = |chain: &str| Verdict::Jump(chain.to_owned());
        let rules = [
            (rule("eth5", Verdict::Return), false),
            (rule("", jump("KUBE-SERVICES")), false),
            (rule("eth1", jump("ISTIO_REDIRECT")), true),
            (rule("eth1", Verdict::Return), true),
            (rule("net1", Verdict::Return), true),
            (rule("", jump("ISTIO_INBOUND")), true),
            (rule("eth6", Verdict::Return), false),
            (rule("", Verdict::Return), false),
        ];
        let found = our_rules(&rules.iter().map(|(rule, _)| rule).collect::<Vec<_>>(), false);
        assert_eq!(found, rules.iter().map(|(_, is_ours)| *is_ours).collect::<Vec<_>>());
    }
}
