//! Brings a plan into force.

use super::change::Change;
use super::expr::Expr;
use super::lower::{lower, table_name};
use super::read::Live;
use super::ruleset::{Ruleset, Table};
use super::socket::{Error, Socket};
use super::wire::INET;
use super::{print, read};
use crate::plan::Plan;

/// How often to look again when somebody else changes rules meanwhile.
const ATTEMPTS: usize = 200;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything was changed.
    pub changed: bool,
    /// Number of rules in force.
    pub rules: usize,
}

/// Brings a plan into force, in one commit unless traffic is captured by other
/// tables than before; one without tables removes all that is ours, also what
/// iptables mode has left in nf_tables. With `force`, rules
/// that are in force already are written again.
///
/// # Errors
/// What the kernel refused; then nothing has changed.
pub fn apply(plan: &Plan, force: bool) -> Result<Outcome, Error> {
    let wanted = lower(plan);
    until_calm(|| {
        let mut socket = Socket::open()?;
        let mut live = read::read(&mut socket)?;
        let mut before = None;
        if let Some(first) = first_stage(&live, &wanted) {
            let alone = Live { remnants: Vec::new(), ..live.clone() };
            let change = Change::of(&alone, &first, false);
            if !change.is_empty() {
                change.commit(&mut socket)?;
                before = Some(std::mem::replace(&mut live, read::read(&mut socket)?));
            }
        }
        let change = Change::of(&live, &wanted, force);
        let changed = !change.is_empty();
        if changed && let Err(error) = change.commit(&mut socket) {
            if let Some(before) = before.filter(|_| !error.is_race()) {
                // What was in force alone is so again; where even that fails, both are.
                drop(
                    read::read(&mut socket)
                        .and_then(|live| Change::of(&live, &before.ours, false).commit(&mut socket)),
                );
            }
            return Err(error);
        }
        Ok(Outcome { changed: changed || before.is_some(), rules: wanted.len() })
    })
}

/// What has to be in force before the rest can go. A packet that is under way
/// during a commit meets some chains as they were before and others as they
/// are after: when it is captured by another table than before, both must be
/// there for a moment, or it meets neither.
fn first_stage(live: &Live, wanted: &Ruleset) -> Option<Ruleset> {
    if wanted.is_empty() {
        return None;
    }
    // Of a table that somebody has changed beyond its rules, nothing can be kept.
    let can_keep = !live.ours.is_empty() && !live.ours.tables.iter().any(|table| table.is_strange);
    let gains_tproxy = has_tproxy(wanted);
    if !can_keep || has_tproxy(&live.ours) == gains_tproxy {
        return live.has_iptables_rules().then(|| wanted.clone());
    }
    let mangle = table_name("mangle");
    let is_new = |table: &&Table| (table.name == mangle) == gains_tproxy;
    let new = wanted.tables.iter().filter(is_new);
    let old = live.ours.tables.iter().filter(|table| !is_new(table));
    Some(Ruleset { tables: new.chain(old).cloned().collect() })
}

fn has_tproxy(ruleset: &Ruleset) -> bool {
    let mut rules = ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    rules.any(|rule| rule.iter().any(|expr| matches!(expr, Expr::Tproxy(_))))
}

/// What `apply` would do, in the words of nft; `None` if nothing.
///
/// # Errors
/// The kernel does not tell.
pub fn pending(plan: &Plan) -> Result<Option<String>, Error> {
    let (live, wanted) = (read::live()?, lower(plan));
    if Change::of(&live, &wanted, false).is_empty() {
        return Ok(None);
    }
    let stale = live.ours.tables.iter().filter(|table| wanted.table(&table.name).is_none());
    let mut text: String = stale.map(|table| format!("delete table inet {}\n", table.name)).collect();
    if live.has_iptables_rules() {
        text += "# and our rules in the tables of iptables-nft go\n";
    }
    text += &print::ruleset(&wanted);
    Ok(Some(text))
}

/// Whether there are tables of ours.
///
/// # Errors
/// The kernel does not tell.
pub fn has_ours() -> Result<bool, Error> {
    until_calm(|| Ok(read::tables(&mut Socket::open()?, INET)?.iter().any(read::Seen::is_ours)))
}

/// Removes our tables, and nothing from those of iptables. Tells whether there
/// were any.
///
/// # Errors
/// What the kernel refused; then nothing has changed.
pub fn remove_native() -> Result<bool, Error> {
    until_calm(|| {
        let mut socket = Socket::open()?;
        let tables = read::tables(&mut socket, INET)?;
        let ours = tables.iter().filter(|table| table.is_ours()).map(|table| table.name.as_str());
        let change = Change::removal(ours);
        if change.is_empty() {
            return Ok(false);
        }
        change.commit(&mut socket).map(|()| true)
    })
}

/// Does something again when the rules have changed while it was done.
pub(super) fn until_calm<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_race() => {
                tracing::debug!("{error}; once more");
                std::thread::yield_now();
            }
            result => return result,
        }
    }
    attempt()
}
