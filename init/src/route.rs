//! The route of TPROXY: packets with its mark belong to this machine, whatever
//! their address. One policy rule and one route for each family.
//!
//! What an earlier run made is known by its form, whatever mark and table it
//! was given: a rule for a mark that leads to a table with nothing but
//! `local default dev lo`.

use std::{fmt, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::family::Family;
use crate::plan::{Plan, Route};

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: String,
    source: io::Error,
}

/// A policy rule of ours and its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The family.
    pub family: Family,
    /// Mark and table.
    pub route: Route,
    /// Whether the table has its route.
    pub is_complete: bool,
    /// The kernel's message, by which the rule is removed.
    rule: RuleMessage,
}

/// What has to change.
#[derive(Debug, Default)]
pub struct Change {
    add_rules: Vec<(Family, Route)>,
    add_routes: Vec<(Family, u32)>,
    remove: Vec<Live>,
    /// Tables that stay although a rule that led there goes.
    kept: Vec<(Family, u32)>,
}

impl Change {
    /// From what is there to what a plan wants.
    pub fn of(plan: &Plan, live: Vec<Live>) -> Self {
        let wanted = Family::ALL.into_iter().filter(|&family| plan.has(family));
        let wanted: Vec<_> = wanted.filter_map(|family| Some((family, plan.route?))).collect();
        let mut change = Self { add_rules: wanted.clone(), ..Self::default() };
        change.kept = wanted.iter().map(|(family, route)| (*family, route.table)).collect();
        change.add_routes.clone_from(&change.kept);
        for found in live {
            if found.is_complete {
                change.add_routes.retain(|known| *known != (found.family, found.route.table));
            }
            let known = (found.family, found.route);
            let before = change.add_rules.len();
            change.add_rules.retain(|wanted| *wanted != known);
            // Each once: a second one like it goes, as one that is not wanted.
            let is_first = change.add_rules.len() < before;
            if !is_first && (found.is_complete || wanted.contains(&known)) {
                change.remove.push(found);
            }
        }
        change
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add_rules.is_empty() && self.add_routes.is_empty() && self.remove.is_empty()
    }

    /// Adds what is missing: before the rules that need it.
    ///
    /// # Errors
    /// What the kernel refused; then nothing has been added.
    pub fn add(&self) -> Result<(), Error> {
        let result = self.try_add();
        if result.is_err() {
            self.undo();
        }
        result
    }

    fn try_add(&self) -> Result<(), Error> {
        for &(family, table) in &self.add_routes {
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            let message = RouteNetlinkMessage::NewRoute(default_route(family, table)?);
            request(message, flags, || format!("adding the route to lo to table {table}"))?;
        }
        for &(family, route) in &self.add_rules {
            let message = RouteNetlinkMessage::NewRule(rule(family, route));
            let what = || format!("adding the rule of mark {:#x} for table {}", route.mark, route.table);
            request(message, NLM_F_CREATE | NLM_F_EXCL, what)?;
        }
        Ok(())
    }

    /// Removes what `add` added, when the rules could not be written.
    pub fn undo(&self) {
        for &(family, route) in &self.add_rules {
            let message = RouteNetlinkMessage::DelRule(rule(family, route));
            drop(request(message, 0, || "undoing a rule".to_owned()));
        }
        for &(family, table) in &self.add_routes {
            if let Ok(route) = default_route(family, table) {
                drop(request(RouteNetlinkMessage::DelRoute(route), 0, || "undoing a route".to_owned()));
            }
        }
    }

    /// Removes what is not wanted any more: after the rules that needed it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove(&self) -> Result<(), Error> {
        for Live { family, route, is_complete, rule } in &self.remove {
            let what = || format!("removing the rule of mark {:#x}", route.mark);
            request(RouteNetlinkMessage::DelRule(rule.clone()), 0, what)?;
            if *is_complete && !self.kept.contains(&(*family, route.table)) {
                let message = RouteNetlinkMessage::DelRoute(default_route(*family, route.table)?);
                request(message, 0, || format!("removing the route of table {}", route.table))?;
            }
        }
        Ok(())
    }
}

/// In the words of iproute2.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |family: &Family| if *family == Family::V4 { "ip" } else { "ip -6" };
        for (family, table) in &self.add_routes {
            writeln!(f, "{} route add local default dev lo table {table}", ip(family))?;
        }
        for (family, Route { mark, table }) in &self.add_rules {
            writeln!(f, "{} rule add fwmark {mark:#x} lookup {table}", ip(family))?;
        }
        for Live { family, route: Route { mark, table }, .. } in &self.remove {
            writeln!(f, "{} rule delete fwmark {mark:#x} lookup {table}", ip(family))?;
        }
        Ok(())
    }
}

/// Policy rules that look like ours, in both families.
///
/// # Errors
/// What the kernel refused.
pub fn live() -> Result<Vec<Live>, Error> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let rules = dump(RouteNetlinkMessage::GetRule(message), "listing routing rules")?;
        let marked = rules.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(rule) => Some((marked(&rule)?, rule)),
            _ => None,
        });
        let marked: Vec<_> = marked.collect();
        if marked.is_empty() {
            continue;
        }
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        let routes = dump(RouteNetlinkMessage::GetRoute(message), "listing routes")?;
        let tables: Vec<(u32, bool)> = routes.iter().filter_map(route_of_table).collect();
        for (route, rule) in marked {
            let mut in_table = tables.iter().filter(|(table, _)| *table == route.table).peekable();
            let is_complete = in_table.peek().is_some() && in_table.all(|(_, is_ours)| *is_ours);
            found.push(Live { family, route, is_complete, rule });
        }
    }
    Ok(found)
}

/// Mark and table of a rule that says nothing else.
fn marked(rule: &RuleMessage) -> Option<Route> {
    if rule.header.action != RuleAction::ToTable {
        return None;
    }
    let (mut mark, mut table) = (0, u32::from(rule.header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::FwMask(u32::MAX)
            | RuleAttribute::Priority(_)
            | RuleAttribute::Protocol(_)
            | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return None,
        }
    }
    (mark != 0).then_some(Route { mark, table })
}

/// The table of a route, and whether it is the one that we make.
fn route_of_table(message: &RouteNetlinkMessage) -> Option<(u32, bool)> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let mut table = u32::from(route.header.table);
    let mut to_lo = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Oif(index) => to_lo = loopback().is_ok_and(|lo| lo == *index),
            _ => {}
        }
    }
    let is_ours =
        to_lo && route.header.kind == RouteType::Local && route.header.destination_prefix_length == 0;
    Some((table, is_ours))
}

fn rule(family: Family, route: Route) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![RuleAttribute::FwMark(route.mark), RuleAttribute::Table(route.table)];
    message
}

fn default_route(family: Family, table: u32) -> Result<RouteMessage, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = if family == Family::V4 { RouteScope::Host } else { RouteScope::Universe };
    message.header.kind = RouteType::Local;
    let lo = loopback().map_err(|source| Error { what: "looking for lo".to_owned(), source })?;
    message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(lo)];
    Ok(message)
}

fn loopback() -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex("lo")?)
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Asks for one thing and waits for the answer. What is there already, or gone
/// already, is fine.
fn request(message: RouteNetlinkMessage, flags: u16, what: impl Fn() -> String) -> Result<(), Error> {
    match exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EEXIST | Errno::ENOENT | Errno::ESRCH) => Ok(()),
            _ => Err(Error { what: what(), source: error }),
        },
    }
}

/// Asks for a list. A kernel without the family has none.
fn dump(message: RouteNetlinkMessage, what: &str) -> Result<Vec<RouteNetlinkMessage>, Error> {
    match exchange(message, NLM_F_REQUEST | NLM_F_DUMP) {
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(Vec::new()),
        other => other.map_err(|source| Error { what: what.to_owned(), source }),
    }
}

/// Sends a message and collects the answers up to the last.
fn exchange(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let answer: NetlinkMessage<RouteNetlinkMessage> =
                NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to four bytes.
            let length = (answer.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(answers),
                    Some(_) => return Err(error.to_io()),
                },
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Route = Route { mark: 1337, table: 133 };

    fn live(family: Family, route: Route, is_complete: bool) -> Live {
        Live { family, route, is_complete, rule: rule(family, route) }
    }

    fn plan(ipv6: bool, route: Option<Route>) -> Plan {
        let tables = if route.is_some() {
            vec![crate::plan::Table { name: "mangle", chains: Vec::new() }]
        } else {
            Vec::new()
        };
        Plan { ipv6, route, tables, ..Plan::default() }
    }

    #[test]
    fn adds_what_is_missing_in_each_family() {
        let change = Change::of(&plan(true, Some(WANTED)), vec![live(Family::V4, WANTED, true)]);
        assert_eq!(
            (change.add_rules, change.add_routes),
            (vec![(Family::V6, WANTED)], vec![(Family::V6, 133)])
        );
        assert!(change.remove.is_empty());
    }

    #[test]
    fn one_of_each_is_enough() {
        let twice = vec![live(Family::V4, WANTED, true), live(Family::V4, WANTED, true)];
        let change = Change::of(&plan(false, Some(WANTED)), twice);
        assert!(change.add_rules.is_empty() && change.add_routes.is_empty());
        assert_eq!(change.remove.len(), 1);
        assert_eq!(change.kept, [(Family::V4, 133)]);
    }

    #[test]
    fn others_of_ours_go_and_foreign_ones_stay() {
        let old = Route { mark: 7, table: 77 };
        let foreign = Route { mark: 9, table: 254 };
        let found = vec![live(Family::V4, old, true), live(Family::V4, foreign, false)];
        let change = Change::of(&plan(false, None), found);
        assert_eq!(change.remove.iter().map(|live| live.route).collect::<Vec<_>>(), [old]);
        assert!(change.add_rules.is_empty());
    }
}
