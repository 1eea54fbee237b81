//! Rules in the words of nft, as `nft -s list ruleset` prints them.

use std::fmt;

use super::clause::Clause;
use super::expr::Verdict;
use super::parse;
use super::ruleset::{Hook, Rule, Ruleset, Table};
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::family::Family;
use crate::rule::{Addresses, Protocol, State};

/// A rule on one line.
pub fn rule(rule: &Rule) -> String {
    let clauses = parse::clauses(rule);
    clauses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Text for `nft -f`: whatever these tables held is replaced, in one
/// transaction.
pub fn ruleset(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    for table in &ruleset.tables {
        // To add a table that is there already is no error; to delete one that is not, is.
        for action in ["add", "delete"] {
            text += &format!("{action} table inet {}\n", table.name);
        }
    }
    for table in &ruleset.tables {
        text += &Block(table).to_string();
    }
    text
}

/// A table as a block of text.
struct Block<'a>(&'a Table);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.0.name)?;
        for chain in &self.0.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(hook) = &chain.hook {
                writeln!(f, "\t\t{hook}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{}", self::rule(rule))?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, number, priority, accepts } = self;
        let place = ["prerouting", "input", "forward", "output", "postrouting"];
        let place = usize::try_from(*number).ok().and_then(|number| place.get(number)).unwrap_or(&"?");
        let policy = if *accepts { "accept" } else { "drop" };
        write!(f, "type {kind} hook {place} priority {priority}; policy {policy};")
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { is_output, name, is_prefix } => {
                let which = if *is_output { "oifname" } else { "iifname" };
                write!(f, "{which} \"{name}{}\"", if *is_prefix { "*" } else { "" })
            }
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.name()),
            Self::Addresses { is_source, addresses: Addresses { within, network } } => {
                let family = ip(Some(Family::of(network)));
                write!(f, "{family} {}addr {}", end(*is_source), unless(*within))?;
                if network.prefix_len() == network.max_prefix_len() {
                    write!(f, "{}", network.addr())
                } else {
                    write!(f, "{network}")
                }
            }
            Self::State(State::Invalid) => f.write_str("ct state invalid"),
            Self::State(State::Known) => f.write_str("ct state established,related"),
            Self::Ports { protocol, is_source, within, ports } => {
                port_words(f, *protocol, *is_source, *within)?;
                write_ports(f, *ports)
            }
            Self::NotPorts { protocol, ports } => {
                port_words(f, *protocol, false, false)?;
                write!(f, "{{ {} }}", list(ports))
            }
            Self::Mark { within, mark } => write!(f, "meta mark {}{mark:#010x}", unless(*within)),
            Self::ConnectionMark(mark) => write!(f, "ct mark {mark:#010x}"),
            Self::Owner { is_user, within, ids } => {
                let which = if *is_user { "skuid" } else { "skgid" };
                write!(f, "meta {which} {}{ids}", unless(*within))
            }
            Self::NotGroups(groups) => write!(f, "meta skgid != {{ {} }}", list::<Ids>(groups)),
            Self::Counter => f.write_str("counter"),
            Self::Verdict(Verdict::Accept) => f.write_str("accept"),
            Self::Verdict(Verdict::Drop) => f.write_str("drop"),
            Self::Verdict(Verdict::Return) => f.write_str("return"),
            Self::Verdict(Verdict::Jump(chain)) => write!(f, "jump {chain}"),
            Self::Verdict(Verdict::Goto(chain)) => write!(f, "goto {chain}"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Tproxy(None, port) => write!(f, "tproxy to :{port}"),
            Self::Tproxy(family, port) => write!(f, "tproxy {} to :{port}", ip(*family)),
            Self::Zone(zone) => write!(f, "ct zone set {zone}"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::SaveMark => f.write_str("ct mark set meta mark"),
            Self::RestoreMark => f.write_str("meta mark set ct mark"),
            Self::Unknown(expr) => write!(f, "<{}>", super::code::name(expr)),
        }
    }
}

fn ip(family: Option<Family>) -> &'static str {
    if family == Some(Family::V6) { "ip6" } else { "ip" }
}

fn end(is_source: bool) -> char {
    if is_source { 's' } else { 'd' }
}

fn unless(within: bool) -> &'static str {
    if within { "" } else { "!= " }
}

fn port_words(f: &mut fmt::Formatter<'_>, protocol: Protocol, is_source: bool, within: bool) -> fmt::Result {
    write!(f, "{} {}port {}", protocol.name(), end(is_source), unless(within))
}

fn write_ports(f: &mut fmt::Formatter<'_>, ports: Ports) -> fmt::Result {
    write!(f, "{}", ports.first())?;
    if ports.first() == ports.last() { Ok(()) } else { write!(f, "-{}", ports.last()) }
}

fn list<T: fmt::Display>(members: &[T]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
