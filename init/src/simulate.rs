//! What the rules do with the first packet of a connection: the kernel's way
//! through tables and chains, on rules as values.
//!
//! It knows what our rules are made of. Foreign rules that it cannot read are
//! told and passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::family::Family;
use crate::plan::{OUTPUT, PREFIX, PREROUTING, Plan};
use crate::rule::{Addresses, Match, Protocol, Rule, State, Target};

/// Chains may not call each other deeper than the kernel allows.
const MAX_DEPTH: usize = 16;

/// Rules of one table: chains by their names in iptables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains(Vec<(String, Vec<Result<Rule, String>>)>);

/// All rules that packets of a family meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(Vec<(String, Chains)>);

impl Tables {
    /// The rules that a plan has for a family.
    pub fn of(plan: &Plan, family: Family) -> Self {
        let mut tables = Self::default();
        for table in plan.tables.iter().filter(|_| plan.has(family)) {
            for chain in &table.chains {
                let rules = chain.rules.iter().filter(|rule| rule.is_for(family)).cloned().map(Ok);
                tables.add(table.name, chain.name, rules.collect());
            }
        }
        tables
    }

    /// Adds a chain.
    pub fn add(&mut self, table: &str, chain: &str, rules: Vec<Result<Rule, String>>) {
        let index = self.0.iter().position(|(name, _)| name == table).unwrap_or_else(|| {
            self.0.push((table.to_owned(), Chains::default()));
            self.0.len() - 1
        });
        self.0[index].1.0.push((chain.to_owned(), rules));
    }

    /// Table, name and number of rules of each chain of ours.
    pub fn ours(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let chains =
            self.0.iter().flat_map(|(table, chains)| chains.0.iter().map(move |chain| (table, chain)));
        chains
            .filter(|(_, (name, rules))| name.starts_with(PREFIX) && !rules.is_empty())
            .map(|(table, (name, rules))| (table.as_str(), name.as_str(), rules.len()))
    }

    fn chain(&self, table: &str, chain: &str) -> &[Result<Rule, String>] {
        let chains = self.0.iter().find(|(name, _)| name == table).map(|(_, chains)| &chains.0);
        chains.into_iter().flatten().find(|(name, _)| name == chain).map_or(&[], |(_, rules)| rules)
    }
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// From where.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// To where.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
    /// User and group of the process that sends it; nobody's when it comes in.
    pub owner: Option<(u32, u32)>,
    /// Interface by which it comes in.
    pub input: Option<String>,
    /// Interface by which it leaves.
    pub output: Option<String>,
    /// Its mark.
    pub mark: u32,
}

impl Packet {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// A rule that a packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its table.
    pub table: &'static str,
    /// Its chain.
    pub chain: String,
    /// Its place in the chain, from 1.
    pub number: usize,
    /// The rule, or the text of one that is not understood.
    pub rule: Result<Rule, String>,
    /// Why it was for this packet, or the first condition that was not met.
    pub why: Result<String, String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to where it was sent.
    Passes,
    /// It is delivered to a port of this machine.
    Redirected(u16),
    /// It is delivered to the socket of a port, addresses unchanged.
    Tproxied(u16),
    /// It is dropped.
    Dropped,
}

/// A packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The rules it met, in order.
    pub met: Vec<Met>,
}

impl Walk {
    /// The rule that decided: for a packet that was redirected, the last one
    /// with a reason of its own before the rule that has the port.
    pub fn decisive(&self) -> Option<&Met> {
        let applied = || self.met.iter().rev().filter(|met| met.why.is_ok());
        let last = applied().next()?;
        let is_mere_target = |met: &Met| {
            met.rule.as_ref().is_ok_and(|rule| {
                matches!(rule.target, Target::Redirect(_) | Target::Tproxy { .. } | Target::SetMark(_))
                    && rule.matches.is_empty()
            })
        };
        if is_mere_target(last) { applied().nth(1).or(Some(last)) } else { Some(last) }
    }
}

/// Sends a packet of a local process.
pub fn outbound(tables: &Tables, packet: &Packet) -> Walk {
    let mut machine = Machine { tables, packet: packet.clone(), met: Vec::new() };
    for table in ["raw", "mangle", "nat"] {
        match machine.table(table, OUTPUT) {
            Effect::Redirect(port) => {
                machine.packet.destination = localhost(packet.family());
                machine.packet.destination_port = port;
                machine.packet.output = Some("lo".to_owned());
                return machine.end(Verdict::Redirected(port));
            }
            Effect::Drop => return machine.end(Verdict::Dropped),
            Effect::Tproxy(_) | Effect::None => {}
        }
    }
    if machine.packet.output.as_deref() == Some("lo") {
        // It comes in again, with its mark, but `nat` has had its say.
        machine.packet.input = machine.packet.output.take();
        machine.packet.owner = None;
        return machine.arrive(&["raw", "mangle"]);
    }
    machine.end(Verdict::Passes)
}

/// Receives a packet from the network.
pub fn inbound(tables: &Tables, packet: &Packet) -> Walk {
    let machine = Machine { tables, packet: packet.clone(), met: Vec::new() };
    machine.arrive(&["raw", "mangle", "nat"])
}

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// What a table did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    Redirect(u16),
    Tproxy(u16),
    Drop,
}

/// What a chain said.
enum Said {
    Continue,
    Return,
    Stop(Effect),
}

struct Machine<'a> {
    tables: &'a Tables,
    packet: Packet,
    met: Vec<Met>,
}

impl Machine<'_> {
    fn end(self, verdict: Verdict) -> Walk {
        Walk { verdict, met: self.met }
    }

    fn arrive(mut self, tables: &[&'static str]) -> Walk {
        for table in tables {
            match self.table(table, PREROUTING) {
                Effect::Redirect(port) => return self.end(Verdict::Redirected(port)),
                Effect::Tproxy(port) => return self.end(Verdict::Tproxied(port)),
                Effect::Drop => return self.end(Verdict::Dropped),
                Effect::None => {}
            }
        }
        self.end(Verdict::Passes)
    }

    fn table(&mut self, table: &'static str, chain: &str) -> Effect {
        match self.chain(table, chain, 0) {
            Said::Stop(effect) => effect,
            Said::Continue | Said::Return => Effect::None,
        }
    }

    fn chain(&mut self, table: &'static str, chain: &str, depth: usize) -> Said {
        let tables = self.tables;
        for (index, rule) in tables.chain(table, chain).iter().enumerate() {
            let why = match rule {
                Ok(rule) => check(rule, &self.packet),
                Err(text) => Err(format!("not understood: {text}")),
            };
            let applies = why.is_ok();
            self.met.push(Met { table, chain: chain.to_owned(), number: index + 1, rule: rule.clone(), why });
            let Some(rule) = rule.as_ref().ok().filter(|_| applies) else { continue };
            match &rule.target {
                Target::Return => return Said::Return,
                Target::Accept => return Said::Stop(Effect::None),
                Target::Drop => return Said::Stop(Effect::Drop),
                Target::Redirect(port) => return Said::Stop(Effect::Redirect(*port)),
                Target::Tproxy { port, mark } => {
                    self.packet.mark = *mark;
                    return Said::Stop(Effect::Tproxy(*port));
                }
                Target::SetMark(mark) => self.packet.mark = *mark,
                // Of a connection without packets before this one.
                Target::RestoreMark => self.packet.mark = 0,
                Target::SaveMark | Target::Zone(_) => {}
                Target::Jump(next) if depth < MAX_DEPTH => {
                    if let stop @ Said::Stop(_) = self.chain(table, next, depth + 1) {
                        return stop;
                    }
                }
                Target::Jump(_) => {}
            }
        }
        Said::Continue
    }
}

/// Why a rule is for a packet, or which condition is not met.
fn check(rule: &Rule, packet: &Packet) -> Result<String, String> {
    let mut reasons = Vec::new();
    if !rule.is_for(packet.family()) {
        return Err(format!("it is for {:?}", packet.family()));
    }
    let mut require = |is: bool, reason: String| {
        if is {
            reasons.push(reason);
            Ok(())
        } else {
            Err(reason)
        }
    };
    for (addresses, side, address) in
        [(&rule.source, "source", packet.source), (&rule.destination, "destination", packet.destination)]
    {
        let Some(Addresses { within, network }) = addresses else { continue };
        let is_in = network.contains(&address);
        let word = if is_in { "is in" } else { "is not in" };
        require(is_in == *within, format!("{side} {address} {word} {network}"))?;
    }
    for (pattern, name, side) in
        [(&rule.input, &packet.input, "comes in by"), (&rule.output, &packet.output, "leaves by")]
    {
        let Some(pattern) = pattern else { continue };
        let name = name.as_deref().unwrap_or("no interface");
        let fits = pattern.pattern().fits(name);
        require(
            fits,
            format!("{side} {name}{}", if fits { String::new() } else { format!(", not {pattern}") }),
        )?;
    }
    if let Some(protocol) = rule.protocol {
        require(protocol == packet.protocol, format!("is {}", packet.protocol.name()))?;
    }
    for condition in &rule.matches {
        let (is, reason) = holds(condition, packet);
        require(is, reason)?;
    }
    Ok(if reasons.is_empty() { "every packet".to_owned() } else { reasons.join(", ") })
}

fn holds(condition: &Match, packet: &Packet) -> (bool, String) {
    let port = packet.destination_port;
    let owner = |what: &str, id: Option<u32>, is_one: &dyn Fn(u32) -> bool, want: bool| match id {
        Some(id) => (is_one(id) == want, format!("{what} {id}")),
        None => (!want, format!("no {what}")),
    };
    let (user, group) = (packet.owner.map(|owner| owner.0), packet.owner.map(|owner| owner.1));
    match condition {
        Match::Destination(ports) => (ports.contains(port), format!("port {port}")),
        Match::NotDestination(ports) => (!ports.contains(port), format!("port {port} is not {ports}")),
        Match::NotDestinations(ports) => {
            (!ports.contains(&port), format!("port {port} is none of {ports:?}"))
        }
        Match::Source(ports) => {
            (ports.contains(packet.source_port), format!("source port {}", packet.source_port))
        }
        Match::User(ids) => owner("uid", user, &|id| ids.contains(id), true),
        Match::NotUser(ids) => owner("uid", user, &|id| ids.contains(id), false),
        Match::Group(ids) => owner("gid", group, &|id| ids.contains(id), true),
        Match::NotGroup(ids) => owner("gid", group, &|id| ids.contains(id), false),
        Match::State(State::Invalid | State::Known) => (false, "it begins a connection".to_owned()),
        Match::Mark(mark) => (packet.mark == *mark, format!("mark {:#x}", packet.mark)),
        Match::NotMark(mark) => (packet.mark != *mark, format!("mark {:#x} is not {mark:#x}", packet.mark)),
        Match::ConnectionMark(_) => (false, "its connection has no mark".to_owned()),
    }
}

#[cfg(test)]
mod tests;
