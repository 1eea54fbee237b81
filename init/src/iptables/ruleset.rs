//! What is in force: the rules that `iptables-save` prints, and the part of
//! them that is ours.

use super::parse::parse;
use super::print::print;
use crate::config::Interface;
use crate::family::Family;
use crate::plan::{PREFIX, Plan, TO_ITSELF};
use crate::rule::{Match, Protocol, Rule, Target};

/// Rules as text: table → chain → rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset(Vec<Table>);

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules without `-A NAME`.
    pub rules: Vec<String>,
}

impl Chain {
    /// Whether the chain itself is ours, and not only some of its rules.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(PREFIX)
    }
}

impl Ruleset {
    /// Reads what `iptables-save` printed. Lines of other kinds are comments.
    pub fn parse(text: &str) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                tables.push(Table { name: name.trim().to_owned(), chains: Vec::new() });
                continue;
            }
            let Some(table) = tables.last_mut() else { continue };
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split_ascii_whitespace().next().unwrap_or_default();
                table.chains.push(Chain { name: name.to_owned(), rules: Vec::new() });
            } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
                && let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == name)
            {
                chain.rules.push(rule.trim_end().to_owned());
            }
        }
        Self(tables)
    }

    /// The rules that a plan has for a family.
    pub fn of(plan: &Plan, family: Family) -> Self {
        if !plan.has(family) {
            return Self::default();
        }
        let tables = plan.tables.iter().map(|table| {
            let chains = table.chains.iter().map(|chain| {
                let rules = chain.rules.iter().filter(|rule| rule.is_for(family)).map(print);
                Chain { name: chain.name.to_owned(), rules: rules.collect() }
            });
            let chains = chains.filter(|chain| !chain.rules.is_empty());
            Table { name: table.name.to_owned(), chains: chains.collect() }
        });
        Self(tables.filter(|table| !table.chains.is_empty()).collect())
    }

    /// The tables.
    pub fn tables(&self) -> &[Table] {
        &self.0
    }

    /// The chain of a table.
    pub fn chain(&self, table: &str, chain: &str) -> Option<&Chain> {
        let table = self.0.iter().find(|known| known.name == table)?;
        table.chains.iter().find(|known| known.name == chain)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any chain has a rule.
    pub fn has_rules(&self) -> bool {
        self.0.iter().flat_map(|table| &table.chains).any(|chain| !chain.rules.is_empty())
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.0.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum()
    }

    /// The part that an earlier run of this program or of the original wrote,
    /// or that is wanted anyway.
    #[must_use]
    pub fn ours(&self, wanted: &Self) -> Self {
        let tables = self.0.iter().filter_map(|table| {
            let chains = table.chains.iter().filter_map(|chain| {
                if chain.is_ours() {
                    return Some(chain.clone());
                }
                let wanted = wanted.chain(&table.name, &chain.name).map_or(&[][..], |chain| &chain.rules);
                let mark = if table.name == "mangle" { marks_ours } else { |_: &str| false };
                let rules = our_rules(&chain.rules, wanted, mark);
                (!rules.is_empty()).then(|| Chain { name: chain.name.clone(), rules })
            });
            let chains: Vec<Chain> = chains.collect();
            (!chains.is_empty()).then(|| Table { name: table.name.clone(), chains })
        });
        Self(tables.collect())
    }
}

/// Our rules of a chain that is not ours: jumps into our chains, those of
/// TPROXY, and the exclusions of interfaces next to them.
fn our_rules(rules: &[String], wanted: &[String], is_tproxy: impl Fn(&str) -> bool) -> Vec<String> {
    let mut ours: Vec<bool> =
        rules.iter().map(|rule| jump(rule).is_some() || wanted.contains(rule) || is_tproxy(rule)).collect();
    // Exclusions stand before a jump; those of virtual machines (`-k`) behind
    // the jump to the redirection.
    for index in (1..rules.len()).rev() {
        ours[index - 1] |= ours[index] && is_exclusion(&rules[index - 1]);
    }
    let mut is_behind = false;
    for (index, rule) in rules.iter().enumerate() {
        is_behind = jump(rule) == Some("REDIRECT") || (is_behind && is_exclusion(rule));
        ours[index] |= is_behind;
    }
    rules.iter().zip(ours).filter(|(_, ours)| *ours).map(|(rule, _)| rule.clone()).collect()
}

/// The chain of ours that a rule jumps to, without the prefix.
fn jump(rule: &str) -> Option<&str> {
    let (_, target) = rule.rsplit_once("-j ")?;
    target.split_ascii_whitespace().next()?.strip_prefix(PREFIX)
}

/// Whether it is one of the rules that TPROXY has in the kernel's own chains
/// of `mangle`, whatever its mark: they jump nowhere, but nobody else writes
/// rules of just this form.
fn marks_ours(rule: &str) -> bool {
    // The family only says whose addresses may stand in it.
    let Ok(rule) = parse(rule, Family::V4) else { return false };
    let lo = Interface::loopback();
    let Rule { family: _, source: None, input: None, protocol: Some(Protocol::Tcp), .. } = rule else {
        return false;
    };
    match (&rule.target, &rule.matches[..]) {
        (Target::SaveMark, [Match::Mark(_)]) | (Target::RestoreMark, [Match::ConnectionMark(_)]) => {
            rule.output.is_none() && rule.destination.is_none()
        }
        (Target::Return, [Match::Mark(_)]) => rule.output == Some(lo) && rule.destination.is_none(),
        (Target::SetMark(TO_ITSELF), [Match::User(_) | Match::Group(_)]) => {
            rule.output == Some(lo) && rule.destination.is_some()
        }
        _ => false,
    }
}

/// `-i IF -j RETURN` or `-o IF -j RETURN`.
fn is_exclusion(rule: &str) -> bool {
    let words: Vec<&str> = rule.split_ascii_whitespace().collect();
    matches!(words[..], ["-i" | "-o", _, "-j", "RETURN"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-nft-save v1.8.9 (nf_tables)
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 9999 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -i eth5 -j RETURN
-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1
-A PREROUTING -i eth1 -j ISTIO_REDIRECT
-A PREROUTING -i eth1 -j RETURN
-A PREROUTING -i net1 -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -i eth6 -j RETURN
-A OUTPUT -o net1 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
COMMIT
";

    #[test]
    fn tells_our_rules_from_others() {
        let ours = Ruleset::parse(SAVED).ours(&Ruleset::default());
        let rules = |chain: &str| ours.chain("nat", chain).map(|chain| chain.rules.join("; "));
        assert_eq!(ours.tables().len(), 1, "{ours:?}");
        assert_eq!(rules("ISTIO_OUTPUT").unwrap(), "-d 127.0.0.1/32 -j RETURN");
        assert_eq!(rules("OUTPUT"), None, "nothing tells it from a foreign rule");
        assert_eq!(
            rules("PREROUTING").unwrap(),
            "-i eth1 -j ISTIO_REDIRECT; -i eth1 -j RETURN; -i net1 -j RETURN; -p tcp -j ISTIO_INBOUND"
        );
    }

    #[test]
    fn what_is_wanted_is_ours() {
        let wanted = Ruleset::parse("*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -o net1 -j RETURN\nCOMMIT\n");
        let ours = Ruleset::parse(SAVED).ours(&wanted);
        assert_eq!(ours.chain("nat", "OUTPUT").unwrap().rules, ["-o net1 -j RETURN"]);
    }
}
