//! What is in force: our tables as typed rules, and what a run in iptables mode
//! has left in the tables of iptables-nft.

use std::collections::HashMap;

use super::code::{self, SetKind};
use super::expr::Set;
use super::iptables::{self, Remnant};
use super::ruleset::{Chain, Hook, Ruleset, TABLES, Table};
use super::socket::{Error, Socket};
use super::wire::{Attributes, INET, Request, UNSPECIFIED};

// Types of questions.
const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_MEMBERS: u8 = 13;
const GET_GENERATION: u8 = 16;

// Attributes: of a table,
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
// of a chain,
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
// of a rule,
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
// of a set and of its members.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_LENGTH: u16 = 5;
const MEMBERS_TABLE: u16 = 1;
const MEMBERS_SET: u16 = 2;
const MEMBERS: u16 = 3;
// Flags of a set.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The kernel's count of changes, as it was when this was read.
    pub(super) generation: Option<u32>,
    /// Our tables.
    pub ours: Ruleset,
    /// What is ours in the tables of iptables-nft.
    pub(super) remnants: Vec<Remnant>,
}

impl Live {
    /// Whether rules or chains of ours are in the tables of iptables-nft.
    pub fn has_iptables_rules(&self) -> bool {
        !self.remnants.is_empty()
    }
}

/// Reads what is in force.
///
/// # Errors
/// The kernel does not tell.
pub fn live() -> Result<Live, Error> {
    super::apply::until_calm(|| read(&mut Socket::open()?))
}

/// Reads our tables only.
///
/// # Errors
/// The kernel does not tell.
pub fn ours() -> Result<Ruleset, Error> {
    super::apply::until_calm(|| {
        let mut socket = Socket::open()?;
        let mut tables = tables(&mut socket, INET)?;
        tables.retain(|table| table.is_ours());
        read_ours(&mut socket, tables)
    })
}

pub(super) fn read(socket: &mut Socket) -> Result<Live, Error> {
    let generation = generation(socket)?;
    let tables = tables(socket, UNSPECIFIED)?;
    let mut live = Live { generation, ..Live::default() };
    let (ours, others): (Vec<Seen>, Vec<Seen>) = tables.into_iter().partition(Seen::is_ours);
    if !ours.is_empty() {
        live.ours = read_ours(socket, ours)?;
    }
    for table in others {
        if iptables::may_hold_ours(table.family, &table.name) {
            let chains = chains(socket, table.family, &table.name)?;
            live.remnants.extend(iptables::read(socket, table.family, table.name, &chains)?);
        }
    }
    Ok(live)
}

/// The kernel's count of changes.
fn generation(socket: &mut Socket) -> Result<Option<u32>, Error> {
    let request = Request::new(GET_GENERATION, 0, UNSPECIFIED);
    socket.ask(request, |_| {}, |message| message.attributes().number(1)).map_err(super::socket::answer)
}

/// A table by name.
pub(super) struct Seen {
    pub(super) family: u8,
    pub(super) name: String,
    flags: u32,
}

impl Seen {
    pub(super) fn is_ours(&self) -> bool {
        self.family == INET && TABLES.contains(&self.name.as_str())
    }
}

/// The tables of a family.
pub(super) fn tables(socket: &mut Socket, family: u8) -> Result<Vec<Seen>, Error> {
    let mut tables = Vec::new();
    socket.dump(
        GET_TABLE,
        family,
        |_| {},
        |family, table| {
            if let Some(name) = table.text(TABLE_NAME) {
                tables.push(Seen { family, name, flags: table.number(TABLE_FLAGS).unwrap_or(0) });
            }
        },
    )?;
    Ok(tables)
}

/// The chains of a table. Kernels ignore that only one table is asked for.
fn chains(socket: &mut Socket, family: u8, table: &str) -> Result<Vec<Chain>, Error> {
    let mut chains = Vec::new();
    socket.dump(
        GET_CHAIN,
        family,
        |question| question.text(CHAIN_TABLE, table),
        |_, chain| {
            if chain.text(CHAIN_TABLE).as_deref() == Some(table)
                && let Some(name) = chain.text(CHAIN_NAME)
            {
                chains.push(Chain { name, hook: hook(chain), rules: Vec::new() });
            }
        },
    )?;
    Ok(chains)
}

fn hook(chain: Attributes<'_>) -> Option<Hook> {
    let hook = chain.nested(CHAIN_HOOK)?;
    Some(Hook {
        kind: chain.text(CHAIN_TYPE).unwrap_or_default(),
        number: hook.number(HOOK_NUMBER)?,
        priority: hook.number(HOOK_PRIORITY)?.cast_signed(),
        accepts: chain.number(CHAIN_POLICY).unwrap_or(1) == 1,
    })
}

/// A rule of the kernel.
pub(super) struct LiveRule {
    pub(super) chain: String,
    pub(super) handle: u64,
    pub(super) rule: super::ruleset::Rule,
}

/// The rules of a table, in order within each chain.
pub(super) fn rules(
    socket: &mut Socket,
    family: u8,
    table: &str,
    sets: &HashMap<String, Set>,
) -> Result<Vec<LiveRule>, Error> {
    let mut rules = Vec::new();
    socket.dump(
        GET_RULE,
        family,
        |question| question.text(RULE_TABLE, table),
        |_, rule| {
            if rule.text(RULE_TABLE).as_deref() != Some(table) {
                return;
            }
            let expressions = rule.nested(RULE_EXPRESSIONS).unwrap_or(Attributes(&[]));
            rules.push(LiveRule {
                chain: rule.text(RULE_CHAIN).unwrap_or_default(),
                handle: rule.handle(RULE_HANDLE).unwrap_or_default(),
                rule: code::decode(expressions, |name| sets.get(name).cloned()),
            });
        },
    )?;
    Ok(rules)
}

fn read_ours(socket: &mut Socket, seen: Vec<Seen>) -> Result<Ruleset, Error> {
    let mut ruleset = Ruleset::default();
    for Seen { name, flags, .. } in seen {
        let mut table = Table { chains: chains(socket, INET, &name)?, is_strange: flags != 0, name };
        let (sets, has_strange) = sets(socket, &table.name)?;
        table.is_strange |= has_strange;
        for LiveRule { chain, rule, .. } in rules(socket, INET, &table.name, &sets)? {
            if let Some(known) = table.chains.iter_mut().find(|known| known.name == chain) {
                known.rules.push(rule);
            }
        }
        ruleset.tables.push(table);
    }
    Ok(ruleset)
}

/// The sets of a table of ours that rules of ours may look into, and whether
/// there are others.
fn sets(socket: &mut Socket, table: &str) -> Result<(HashMap<String, Set>, bool), Error> {
    let mut kinds = Vec::new();
    let mut has_strange = false;
    socket.dump(
        GET_SET,
        INET,
        |question| question.text(SET_TABLE, table),
        |_, set| {
            if set.text(SET_TABLE).as_deref() != Some(table) {
                return;
            }
            let flags = set.number(SET_FLAGS).unwrap_or(0);
            let length = set.number(SET_KEY_LENGTH).unwrap_or(0);
            let is_plain = flags & !INTERVAL == ANONYMOUS | CONSTANT;
            match (SetKind::known(length, flags & INTERVAL != 0), set.text(SET_NAME)) {
                (Some(kind), Some(name)) if is_plain => kinds.push((name, kind)),
                _ => has_strange = true,
            }
        },
    )?;
    let mut sets = HashMap::new();
    for (name, kind) in kinds {
        let mut pieces = Vec::new();
        let question = |question: &mut super::wire::Writer| {
            question.text(MEMBERS_TABLE, table);
            question.text(MEMBERS_SET, &name);
        };
        socket.dump(GET_MEMBERS, INET, question, |_, answer| {
            if let Some(members) = answer.get(MEMBERS) {
                pieces.extend_from_slice(members);
            }
        })?;
        let members = Attributes(&pieces).iter().map(|(_, member)| Attributes(member));
        match code::decode_members(kind, members) {
            Some(set) => drop(sets.insert(name, set)),
            None => has_strange = true,
        }
    }
    Ok((sets, has_strange))
}
