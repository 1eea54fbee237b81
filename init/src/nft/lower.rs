//! From a plan to our tables: which conditions a rule has, in which order, and
//! where Istio's native mode differs from its iptables mode.

use super::clause::Clause;
use super::expr::Verdict;
use super::ruleset::{Chain, Hook, PREFIX, Rule as Lowered, Ruleset, Table};
use crate::config::owner::Ids;
use crate::config::{Interface, Pattern};
use crate::family::Family;
use crate::plan::{self, Plan, TO_ITSELF};
use crate::rule::{Match, Protocol, Rule, State, Target};

/// Conditions on groups beyond which a rule would have more expressions than
/// the kernel takes (128); then they become one condition on a set.
const MAX_NOT_GROUPS: usize = 30;

/// The tables of a plan.
pub fn lower(plan: &Plan) -> Ruleset {
    let tables = plan.tables.iter().map(|table| Table {
        name: table_name(table.name),
        chains: table.chains.iter().map(|chain| lower_chain(plan, table.name, chain)).collect(),
        is_strange: false,
    });
    Ruleset { tables: tables.collect() }
}

/// Our name of a table.
pub fn table_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Our name of a chain.
pub fn chain_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn lower_chain(plan: &Plan, table: &str, chain: &plan::Chain) -> Chain {
    let name = chain_name(chain.name);
    let hook = Hook::of(&table_name(table), &name);
    let mut rules = Vec::new();
    if plan.guard && hook.is_some() {
        // Rules without an address would hit IPv6 as well, which is off: what
        // they redirect would reach no listener.
        rules.push(assemble(&[Clause::Family(Family::V6), Clause::Verdict(Verdict::Return)]));
    }
    rules.extend(in_order(plan, table, chain).into_iter().map(|rule| lower_rule(table, rule)));
    Chain { name, hook, rules }
}

/// The rules of a chain in the order that Istio's native mode has them: in
/// table mangle with IPv6, the rule for what Envoy sends to the application
/// over IPv4 has slipped behind the next one, which makes no difference.
fn in_order<'a>(plan: &Plan, table: &str, chain: &'a plan::Chain) -> Vec<&'a Rule> {
    let mut rules: Vec<&Rule> = chain.rules.iter().collect();
    let is_passthrough =
        |rule: &&Rule| rule.source.is_some_and(|source| source.network == Family::V4.passthrough());
    let is_next = |rule: &&Rule| rule.matches.contains(&Match::NotMark(TO_ITSELF));
    if table == "mangle"
        && plan.ipv6
        && let Some(passthrough) = rules.iter().position(is_passthrough)
        && let Some(next) = rules.iter().position(is_next)
        && passthrough < next
    {
        let rule = rules.remove(passthrough);
        rules.insert(next, rule);
    }
    rules
}

/// The expressions of a rule of a table, named as iptables has it.
pub fn lower_rule(table: &str, rule: &Rule) -> Lowered {
    assemble(&clauses(table, rule))
}

fn assemble(clauses: &[Clause]) -> Lowered {
    let mut rule = Vec::new();
    for clause in clauses {
        clause.lower(&mut rule);
    }
    rule
}

/// What a rule says, in the order in which `nft` lists Istio's rules.
fn clauses(table: &str, rule: &Rule) -> Vec<Clause> {
    let Rule { family, source, destination, input, output, protocol, matches, target } = rule;
    let mut clauses = Vec::new();
    clauses.extend(interface(input.as_ref(), false));
    clauses.extend(interface(output.as_ref(), true));

    let ports: Vec<Clause> =
        matches.iter().filter_map(|condition| ports(condition, protocol.unwrap_or(Protocol::Tcp))).collect();
    // A condition on ports brings the protocol with it.
    if ports.is_empty() {
        // Native mode drops only what is invalid of TCP.
        let is_drop = matches.contains(&Match::State(State::Invalid));
        clauses.extend(protocol.or(is_drop.then_some(Protocol::Tcp)).map(Clause::Protocol));
    }
    let addresses =
        [(true, source), (false, destination)].into_iter().filter_map(|(is_source, addresses)| {
            addresses.map(|addresses| Clause::Addresses { is_source, addresses })
        });
    let states = matches.iter().filter_map(|condition| match condition {
        Match::State(state) => Some(Clause::State(*state)),
        _ => None,
    });
    // The rules of zones begin with the port.
    if table == "raw" {
        clauses.extend(states.chain(ports).chain(addresses));
    } else {
        clauses.extend(addresses.chain(states).chain(ports));
    }
    clauses.extend(marks(matches));
    clauses.extend(owners(matches));
    clauses.extend(statements(target, *family));
    clauses
}

/// A trailing `*` is what nft itself has for any ending.
fn interface(interface: Option<&Interface>, is_output: bool) -> Option<Clause> {
    let (name, is_prefix) = match interface?.pattern() {
        Pattern::Beginning(name) => (name, true),
        Pattern::Whole(name) => match name.strip_suffix('*') {
            Some(name) => (name, true),
            None => (name, false),
        },
    };
    // Every interface: no condition.
    let is_any = is_prefix && name.is_empty();
    (!is_any).then(|| Clause::Interface { is_output, name: name.to_owned(), is_prefix })
}

fn ports(condition: &Match, protocol: Protocol) -> Option<Clause> {
    let one = |is_source, within, ports| Clause::Ports { protocol, is_source, within, ports };
    match condition {
        Match::Destination(ports) => Some(one(false, true, *ports)),
        Match::NotDestination(ports) => Some(one(false, false, *ports)),
        Match::Source(ports) => Some(one(true, true, *ports)),
        Match::NotDestinations(ports) => {
            let mut ports = ports.clone();
            ports.sort_unstable();
            ports.dedup();
            Some(Clause::NotPorts { protocol, ports })
        }
        _ => None,
    }
}

fn marks(matches: &[Match]) -> impl Iterator<Item = Clause> {
    let marks = matches.iter().filter_map(|condition| match condition {
        Match::Mark(mark) => Some(Clause::Mark { within: true, mark: *mark }),
        Match::NotMark(mark) => Some(Clause::Mark { within: false, mark: *mark }),
        _ => None,
    });
    marks.chain(matches.iter().filter_map(|condition| match condition {
        Match::ConnectionMark(mark) => Some(Clause::ConnectionMark(*mark)),
        _ => None,
    }))
}

fn owners(matches: &[Match]) -> Vec<Clause> {
    let owner = |is_user, within, ids| Clause::Owner { is_user, within, ids };
    let mut clauses = Vec::new();
    let mut groups = Vec::new();
    for condition in matches {
        match condition {
            Match::User(ids) => clauses.push(owner(true, true, *ids)),
            Match::NotUser(ids) => clauses.push(owner(true, false, *ids)),
            Match::Group(ids) => clauses.push(owner(false, true, *ids)),
            Match::NotGroup(ids) => groups.push(*ids),
            _ => {}
        }
    }
    if groups.len() > MAX_NOT_GROUPS {
        clauses.push(Clause::NotGroups(merged(groups)));
    } else {
        clauses.extend(groups.into_iter().map(|ids| owner(false, false, ids)));
    }
    clauses
}

/// The same ids as sorted ranges that do not meet.
fn merged(mut ids: Vec<Ids>) -> Vec<Ids> {
    ids.sort_unstable_by_key(|ids| (ids.first(), ids.last()));
    let mut merged: Vec<Ids> = Vec::new();
    for ids in ids {
        match merged.last_mut() {
            Some(last) if ids.first() <= last.last().saturating_add(1) => {
                *last = Ids::range(last.first(), last.last().max(ids.last()));
            }
            _ => merged.push(ids),
        }
    }
    merged
}

fn statements(target: &Target, family: Option<Family>) -> Vec<Clause> {
    let statement = match target {
        // Its order is its own: the packet counts when the socket is found.
        Target::Tproxy { port, mark } => {
            return vec![
                Clause::Tproxy(family, *port),
                Clause::SetMark(*mark),
                Clause::Counter,
                Clause::Verdict(Verdict::Accept),
            ];
        }
        Target::Return => Clause::Verdict(Verdict::Return),
        Target::Accept => Clause::Verdict(Verdict::Accept),
        Target::Drop => Clause::Verdict(Verdict::Drop),
        Target::Jump(chain) => Clause::Verdict(Verdict::Jump(chain_name(chain))),
        Target::Redirect(port) => Clause::Redirect(*port),
        Target::Zone(zone) => Clause::Zone(*zone),
        Target::SetMark(mark) => Clause::SetMark(*mark),
        Target::SaveMark => Clause::SaveMark,
        Target::RestoreMark => Clause::RestoreMark,
    };
    vec![Clause::Counter, statement]
}

#[cfg(test)]
mod tests {
    use super::super::print::rule as print;
    use super::*;
    use crate::config::port::Ports;

    #[test]
    fn conditions_stand_in_the_order_of_the_original() {
        let network = |text: &str| text.parse().unwrap();
        let rule = Rule::jump("ISTIO_IN_REDIRECT")
            .when(Match::User(Ids::range(10, 20)))
            .when(Match::NotDestinations(vec![15008, 53, 53]))
            .protocol(Protocol::Tcp)
            .not_to(network("10.0.0.0/9"))
            .output(&Interface::loopback());
        assert_eq!(
            print(&lower_rule("nat", &rule)),
            "oifname \"lo\" ip daddr != 10.0.0.0/9 tcp dport != { 53, 15008 } meta skuid 10-20 \
             counter jump istio-in-redirect"
        );
        let zone = Rule::new(Target::Zone(1)).protocol(Protocol::Udp).from(network("fd00::a/128"));
        let zone = zone.when(Match::Source(Ports::one(53)));
        assert_eq!(print(&lower_rule("raw", &zone)), "udp sport 53 ip6 saddr fd00::a counter ct zone set 1");
        let drop = Rule::jump("ISTIO_DROP").when(Match::State(State::Invalid));
        assert_eq!(
            print(&lower_rule("mangle", &drop)),
            "meta l4proto tcp ct state invalid counter jump istio-drop"
        );
        let tproxy = Rule::new(Target::Tproxy { port: 15006, mark: 1337 }).protocol(Protocol::Tcp);
        assert_eq!(
            print(&lower_rule("mangle", &tproxy.not_to(network("::1/128")))),
            "meta l4proto tcp ip6 daddr != ::1 tproxy ip6 to :15006 meta mark set 0x00000539 counter accept"
        );
    }

    #[test]
    fn many_groups_become_a_set() {
        let groups = |ids: &[Ids]| {
            let rule = Rule::new(Target::Return);
            lower_rule("nat", &ids.iter().fold(rule, |rule, ids| rule.when(Match::NotGroup(*ids))))
        };
        assert_eq!(
            print(&groups(&[Ids::one(7), Ids::range(1, 2)])),
            "meta skgid != 7 meta skgid != 1-2 counter return"
        );
        let many: Vec<Ids> = (0..64).map(|id| Ids::one(id * 2)).collect();
        let rule = groups(&many);
        assert!(rule.len() < 10);
        assert!(print(&rule).starts_with("meta skgid != { 0, 2, 4, "), "{}", print(&rule));
        assert_eq!(
            merged(vec![Ids::range(5, 9), Ids::one(1), Ids::range(8, 11), Ids::one(2)]),
            [Ids::range(1, 2), Ids::range(5, 11)]
        );
    }
}
