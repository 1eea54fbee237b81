//! Brings a plan into force.

use super::change::Change;
use super::lower::lower;
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

/// Brings a plan into force in one step; one without tables removes all that is
/// ours, also what iptables mode has left in nf_tables. With `force`, rules
/// that are in force already are written again.
///
/// # Errors
/// What the kernel refused; then nothing has changed.
pub fn apply(plan: &Plan, force: bool) -> Result<Outcome, Error> {
    let wanted = lower(plan);
    until_calm(|| {
        let mut socket = Socket::open()?;
        let live = read::read(&mut socket)?;
        let change = Change::of(&live, &wanted, force);
        let changed = !change.is_empty();
        if changed {
            change.commit(&mut socket)?;
        }
        Ok(Outcome { changed, rules: wanted.len() })
    })
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
