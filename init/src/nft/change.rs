//! From what is in force to what is wanted, in one batch.
//!
//! A chain that stays is emptied and filled again: the kernel looks once which
//! generation of the rules a packet sees, so each packet sees the old rules or
//! the new ones. A base chain that were made anew would for a moment stand
//! beside the old one, and a packet could pass between them.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use nix::errno::Errno;

use super::code::{self, SetKind, SetRef};
use super::expr::{Expr, Set};
use super::iptables::Remnant;
use super::print;
use super::read::Live;
use super::ruleset::{Chain, Rule, Ruleset, Table};
use super::socket::{Batch, Error, Socket};
use super::wire::{INET, Request, Writer};

// Types of changes.
pub(super) const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
pub(super) const NEW_CHAIN: u8 = 3;
const DELETE_CHAIN: u8 = 5;
pub(super) const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const NEW_MEMBERS: u8 = 12;
/// The kernel puts a number in the place of `%d`.
pub(super) const SET_NAME: &str = "__set%d";
/// Flags of a set: it has no name, does not change, holds ranges.
const SET_FLAGS: u32 = 1 | 2;
const SET_OF_RANGES: u32 = 4;

/// What a message of a batch is about.
#[derive(Clone, Copy, Debug)]
enum Subject<'a> {
    Table(&'a str),
    Chain(&'a str, &'a str),
    Set(&'a str, &'a str),
    Rule(&'a str, &'a str, &'a Rule),
    Foreign(u8, &'a str, &'a str),
}

impl Subject<'_> {
    fn text(self) -> String {
        match self {
            Self::Table(table) => format!("table inet {table}"),
            Self::Chain(table, chain) => format!("chain {chain} of table inet {table}"),
            Self::Set(table, chain) => format!("a set for chain {chain} of table inet {table}"),
            Self::Rule(table, chain, rule) => {
                format!("rule `{}` of chain {chain} of table inet {table}", print::rule(rule))
            }
            Self::Foreign(family, table, chain) => {
                let family = if family == 2 { "ip" } else { "ip6" };
                format!(
                    "removing our rules of an earlier iptables mode from chain {chain} of table {family} {table}"
                )
            }
        }
    }
}

/// A change in the making.
pub(super) struct Change<'a> {
    batch: Batch,
    /// What each message is about.
    subjects: Vec<(usize, Subject<'a>)>,
    sets: u32,
}

impl<'a> Change<'a> {
    /// The change from what is in force to what is wanted. With `force`, also
    /// what is in force already is written again.
    pub(super) fn of(live: &'a Live, wanted: &'a Ruleset, force: bool) -> Self {
        let mut change = Self { batch: Batch::new(live.generation), subjects: Vec::new(), sets: 0 };
        for table in &live.ours.tables {
            if wanted.table(&table.name).is_none() {
                change.delete_table(&table.name);
            }
        }
        for table in &wanted.tables {
            match live.ours.table(&table.name) {
                None => change.create(table),
                Some(old) if !force && old.is_same(table) => {}
                Some(old) if can_refill(old, table) => change.refill(old, table),
                Some(_) => {
                    change.delete_table(&table.name);
                    change.create(table);
                }
            }
        }
        for remnant in &live.remnants {
            change.remove(remnant);
        }
        change
    }

    /// Removes our tables, and nothing else.
    pub(super) fn removal(tables: impl Iterator<Item = &'a str>) -> Self {
        let mut change = Self { batch: Batch::new(None), subjects: Vec::new(), sets: 0 };
        tables.for_each(|table| change.delete_table(table));
        change
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Brings it into force, all or nothing.
    pub(super) fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        self.batch.end();
        let refused = socket.send_batch(&self.batch)?;
        let Some(&(number, errno)) = refused.first() else { return Ok(()) };
        let subject = self.subjects.iter().find(|(known, _)| *known == number);
        match (errno, subject) {
            (Errno::EPERM, None) => Err(Error::Forbidden),
            (_, subject) => {
                let what = subject.map_or_else(|| "the change as a whole".to_owned(), |(_, it)| it.text());
                Err(Error::Refused { what, errno })
            }
        }
    }

    fn add(&mut self, subject: Subject<'a>, request: Request, body: impl FnOnce(&mut Writer)) {
        let number = self.batch.add(request, body);
        self.subjects.push((number, subject));
    }

    fn delete_table(&mut self, table: &'a str) {
        let request = Request::new(DELETE_TABLE, 0, INET);
        self.add(Subject::Table(table), request, |message| message.text(1, table));
    }

    fn create(&mut self, table: &'a Table) {
        let request = Request::new(NEW_TABLE, NLM_F_CREATE, INET);
        self.add(Subject::Table(&table.name), request, |message| {
            message.text(1, &table.name);
            message.number(2, 0);
        });
        self.add_chains(table, None);
        self.add_rules(table);
    }

    /// Leaves the table and the chains that are still wanted where they are.
    fn refill(&mut self, old: &'a Table, table: &'a Table) {
        let request = Request::new(DELETE_RULE, 0, INET);
        self.add(Subject::Table(&table.name), request, |message| message.text(1, &table.name));
        self.add_chains(table, Some(old));
        for chain in old.chains.iter().filter(|chain| table.chain(&chain.name).is_none()) {
            let request = Request::new(DELETE_CHAIN, 0, INET);
            self.add(Subject::Chain(&table.name, &chain.name), request, |message| {
                message.text(1, &table.name);
                message.text(3, &chain.name);
            });
        }
        self.add_rules(table);
    }

    /// Chains come before any rule, since rules jump to them.
    fn add_chains(&mut self, table: &'a Table, old: Option<&Table>) {
        let is_there = |chain: &&Chain| old.is_some_and(|old| old.chain(&chain.name).is_some());
        for chain in table.chains.iter().filter(|chain| !is_there(chain)) {
            let request = Request::new(NEW_CHAIN, NLM_F_CREATE, INET);
            self.add(Subject::Chain(&table.name, &chain.name), request, |message| {
                write_chain(message, &table.name, chain);
            });
        }
    }

    fn add_rules(&mut self, table: &'a Table) {
        for chain in &table.chains {
            for rule in &chain.rules {
                let first = self.sets + 1;
                let sets = rule.iter().filter_map(|expr| match expr {
                    Expr::NotIn(set) => Some(set),
                    _ => None,
                });
                for set in sets {
                    self.add_set(&table.name, &chain.name, set);
                }
                let subject = Subject::Rule(&table.name, &chain.name, rule);
                let request = Request::new(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, INET);
                self.add(subject, request, |message| {
                    let sets = (first..).map(|id| SetRef { name: SET_NAME.to_owned(), id });
                    message.text(1, &table.name);
                    message.text(2, &chain.name);
                    message.nest(4, |list| code::encode(rule, sets, list));
                });
            }
        }
    }

    fn add_set(&mut self, table: &'a str, chain: &'a str, set: &Set) {
        self.sets += 1;
        for number in write_set(&mut self.batch, table, set, self.sets) {
            self.subjects.push((number, Subject::Set(table, chain)));
        }
    }

    /// Removes what is ours from a table of iptables-nft: jumps first, so that
    /// nothing leads to the chains any more.
    fn remove(&mut self, remnant: &'a Remnant) {
        let Remnant { family, table, chains, rules } = remnant;
        for (chain, handle) in rules {
            let request = Request::new(DELETE_RULE, 0, *family);
            self.add(Subject::Foreign(*family, table, chain), request, |message| {
                message.text(1, table);
                message.text(2, chain);
                message.attribute(3, &handle.to_be_bytes());
            });
        }
        // The chains lead to one another: all are emptied before any goes.
        for (kind, name) in [(DELETE_RULE, 2), (DELETE_CHAIN, 3)] {
            for chain in chains {
                let request = Request::new(kind, 0, *family);
                self.add(Subject::Foreign(*family, table, chain), request, |message| {
                    message.text(1, table);
                    message.text(name, chain);
                });
            }
        }
    }
}

/// Whether chains of the table can stay: nothing strange, and each at its hook.
fn can_refill(old: &Table, wanted: &Table) -> bool {
    let is_same_place = |chain: &Chain| wanted.chain(&chain.name).is_none_or(|it| it.hook == chain.hook);
    !old.is_strange && old.chains.iter().all(is_same_place)
}

/// Writes a chain and, if it has one, its hook.
pub(super) fn write_chain(message: &mut Writer, table: &str, chain: &Chain) {
    message.text(1, table);
    message.text(3, &chain.name);
    if let Some(hook) = &chain.hook {
        message.nest(4, |attributes| {
            attributes.number(1, hook.number);
            attributes.number(2, hook.priority.cast_unsigned());
        });
        message.number(5, u32::from(hook.accepts));
        message.text(7, &hook.kind);
    }
}

/// Adds a set and its members; tells the numbers of both messages.
pub(super) fn write_set(batch: &mut Batch, table: &str, set: &Set, id: u32) -> [usize; 2] {
    let kind = SetKind::of(set);
    let flags = if kind.is_interval { SET_FLAGS | SET_OF_RANGES } else { SET_FLAGS };
    let request = |kind| Request::new(kind, NLM_F_CREATE, INET);
    let made = batch.add(request(NEW_SET), |message| {
        message.text(1, table);
        message.text(2, SET_NAME);
        for (attribute, value) in [(3, flags), (4, kind.key), (5, kind.length), (10, id)] {
            message.number(attribute, value);
        }
    });
    let filled = batch.add(request(NEW_MEMBERS), |message| {
        message.text(1, table);
        message.text(2, SET_NAME);
        message.number(4, id);
        message.nest(3, |list| code::encode_members(set, list));
    });
    [made, filled]
}
