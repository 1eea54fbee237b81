//! Live rules as the plan's: for what explains them.

use super::clause::Clause;
use super::expr::Verdict;
use super::parse;
use super::print;
use super::ruleset::{PREFIX, Rule as Lowered, Ruleset};
use crate::config::Interface;
use crate::family::Family;
use crate::rule::{Match, Protocol, Rule, Target};

/// A chain, named as iptables has it, and its rules; of one that rules of ours
/// never are, its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table.
    pub table: String,
    /// The chain.
    pub name: String,
    /// The rules, in order.
    pub rules: Vec<Result<Rule, String>>,
}

/// All chains of our tables.
pub fn raise(ruleset: &Ruleset) -> Vec<Chain> {
    let chains = ruleset.tables.iter().flat_map(|table| {
        let name = table.name.strip_prefix(PREFIX).unwrap_or(&table.name);
        table.chains.iter().map(move |chain| Chain {
            table: name.to_owned(),
            name: chain_name(&chain.name),
            rules: chain.rules.iter().map(raise_rule).collect(),
        })
    });
    chains.collect()
}

/// The name of a chain as iptables has it.
pub fn chain_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// One rule.
///
/// # Errors
/// The text of a rule that ours never are.
pub fn raise_rule(lowered: &Lowered) -> Result<Rule, String> {
    let clauses = parse::clauses(lowered);
    let Some(target) = target(&clauses) else { return Err(print::rule(lowered)) };
    let mut rule = Rule::new(target);
    for clause in clauses {
        rule = condition(rule, clause).ok_or_else(|| print::rule(lowered))?;
    }
    rule.matches.sort_by_key(rank);
    Ok(rule)
}

/// What a rule does: its statements together.
fn target(clauses: &[Clause]) -> Option<Target> {
    let statements: Vec<&Clause> = clauses.iter().filter(|clause| is_statement(clause)).collect();
    let target = match statements[..] {
        [Clause::Verdict(verdict)] => match verdict {
            Verdict::Accept => Target::Accept,
            Verdict::Drop => Target::Drop,
            Verdict::Return => Target::Return,
            Verdict::Jump(chain) => Target::Jump(chain_name(chain)),
            Verdict::Goto(_) => return None,
        },
        [Clause::Redirect(port)] => Target::Redirect(*port),
        [Clause::Zone(zone)] => Target::Zone(*zone),
        [Clause::SetMark(mark)] => Target::SetMark(*mark),
        [Clause::SaveMark] => Target::SaveMark,
        [Clause::RestoreMark] => Target::RestoreMark,
        [Clause::Tproxy(_, port), Clause::SetMark(mark), Clause::Verdict(Verdict::Accept)] => {
            Target::Tproxy { port: *port, mark: *mark }
        }
        _ => return None,
    };
    Some(target)
}

fn is_statement(clause: &Clause) -> bool {
    matches!(
        clause,
        Clause::Verdict(_)
            | Clause::Redirect(_)
            | Clause::Tproxy(..)
            | Clause::Zone(_)
            | Clause::SetMark(_)
            | Clause::SaveMark
            | Clause::RestoreMark
    )
}

/// The rule with one more condition; `None` if it cannot say that.
fn condition(mut rule: Rule, clause: Clause) -> Option<Rule> {
    let family = rule.family;
    match clause {
        Clause::Interface { is_output, name, is_prefix } => {
            let interface = interface(&name, is_prefix)?;
            let slot = if is_output { &mut rule.output } else { &mut rule.input };
            if slot.replace(interface).is_some() {
                return None;
            }
        }
        Clause::Family(only) => rule.family = Some(only),
        Clause::Protocol(protocol) => rule = with_protocol(rule, protocol)?,
        Clause::Addresses { is_source, addresses } => {
            rule.family = Some(Family::of(&addresses.network));
            let slot = if is_source { &mut rule.source } else { &mut rule.destination };
            if slot.replace(addresses).is_some() {
                return None;
            }
        }
        Clause::State(state) => rule.matches.push(Match::State(state)),
        Clause::Ports { protocol, is_source, within, ports } => {
            rule = with_protocol(rule, protocol)?;
            rule.matches.push(match (is_source, within) {
                (false, true) => Match::Destination(ports),
                (false, false) => Match::NotDestination(ports),
                (true, true) => Match::Source(ports),
                (true, false) => return None,
            });
        }
        Clause::NotPorts { protocol, ports } => {
            rule = with_protocol(rule, protocol)?;
            rule.matches.push(Match::NotDestinations(ports));
        }
        Clause::Mark { within: true, mark } => rule.matches.push(Match::Mark(mark)),
        Clause::Mark { within: false, mark } => rule.matches.push(Match::NotMark(mark)),
        Clause::ConnectionMark(mark) => rule.matches.push(Match::ConnectionMark(mark)),
        Clause::Owner { is_user, within, ids } => rule.matches.push(match (is_user, within) {
            (true, true) => Match::User(ids),
            (true, false) => Match::NotUser(ids),
            (false, true) => Match::Group(ids),
            (false, false) => Match::NotGroup(ids),
        }),
        Clause::NotGroups(groups) => rule.matches.extend(groups.into_iter().map(Match::NotGroup)),
        Clause::Tproxy(Some(only), _) if family.is_some_and(|family| family != only) => return None,
        Clause::Unknown(_) => return None,
        _ => {}
    }
    let is_consistent = family.is_none() || family == rule.family;
    is_consistent.then_some(rule)
}

fn with_protocol(mut rule: Rule, protocol: Protocol) -> Option<Rule> {
    if rule.protocol.is_some_and(|known| known != protocol) {
        return None;
    }
    rule.protocol = Some(protocol);
    Some(rule)
}

/// The plan has ports before the state, and owners last.
fn rank(condition: &Match) -> u8 {
    match condition {
        Match::Destination(_) | Match::NotDestination(_) | Match::NotDestinations(_) | Match::Source(_) => 0,
        Match::State(_) => 1,
        Match::Mark(_) | Match::NotMark(_) | Match::ConnectionMark(_) => 2,
        Match::User(_) | Match::NotUser(_) | Match::Group(_) | Match::NotGroup(_) => 3,
    }
}

fn interface(name: &str, is_prefix: bool) -> Option<Interface> {
    // A name may end in a plus; then it is no beginning of names.
    if !is_prefix && name.ends_with('+') {
        return None;
    }
    Interface::parse(&if is_prefix { format!("{name}+") } else { name.to_owned() }).ok()
}
