//! One workload that is or was connected here, and what is to be written about it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::Key;
use pilot::Proxy;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::marks::Health;
use super::store::Origin;
use crate::auth::Caller;

/// A connection of a workload's proxy that was let in.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) proxy: Arc<Proxy>,
    pub(super) caller: Option<Caller>,
    /// When it came.
    pub(super) at: OffsetDateTime,
}

/// What is to be done for a workload.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Nothing, until then or until something changes.
    Until(Instant),
    /// Its entry has to say that it is connected.
    Connect(Connected),
    /// Its entry has to say how it is.
    Tell(Health),
    /// Its entry has to say that it has left, after it had come at the first time.
    Leave(OffsetDateTime, OffsetDateTime),
    /// It has not come back: its entry goes.
    Clean,
    /// Nothing any more.
    End,
}

/// A workload.
#[derive(Debug)]
pub(super) struct Workload {
    /// Its entry.
    pub(super) key: Key,
    /// Its group, if its entry is made for it.
    pub(super) group: Option<String>,
    /// Held by whoever writes.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Told when there may be something to do.
    pub(super) news: Notify,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody was let in yet, or everything is done.
    Idle,
    /// Connected.
    Here,
    /// Gone since then, which is to be written.
    Gone(OffsetDateTime),
    /// Gone, and waited for until then.
    Awaited(Instant),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    connections: BTreeMap<u64, Connected>,
    /// When the last of all connections came.
    latest: OffsetDateTime,
    /// Whether the entry says that it is connected.
    is_written: bool,
    health: Option<Health>,
    /// Whether its entry was seen among the objects in force.
    is_seen: bool,
    /// Whether its group was.
    has_group: bool,
}

impl Workload {
    pub(super) fn new(key: Key, group: Option<String>) -> Self {
        let state = State {
            phase: Phase::Idle,
            connections: BTreeMap::new(),
            latest: OffsetDateTime::UNIX_EPOCH,
            is_written: false,
            health: None,
            is_seen: false,
            has_group: true,
        };
        Self { key, group, turn: tokio::sync::Mutex::default(), news: Notify::new(), state: state.into() }
    }

    /// What it is known by.
    pub(super) fn id(&self) -> (Key, Option<String>) {
        (self.key.clone(), self.group.clone())
    }

    pub(super) fn origin(&self) -> Origin {
        if self.group.is_some() { Origin::Registered } else { Origin::Written }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is let in; whether its entry says so already.
    pub(super) fn enter(&self, id: u64, connected: Connected, is_written: bool) {
        let mut state = self.state();
        state.latest = state.latest.max(connected.at);
        state.connections.insert(id, connected);
        state.phase = Phase::Here;
        state.is_written = is_written;
        drop(state);
        self.news.notify_one();
    }

    /// A connection has ended.
    pub(super) fn leave(&self, id: u64, at: OffsetDateTime) {
        let mut state = self.state();
        if state.connections.remove(&id).is_some() && state.connections.is_empty() {
            state.phase = Phase::Gone(at);
            state.health = None;
        }
        drop(state);
        self.news.notify_one();
    }

    /// The proxy says how the workload is. Of several, the last counts.
    pub(super) fn told(&self, health: Health) {
        self.state().health = Some(health);
        self.news.notify_one();
    }

    /// Looks whether its entry must be made again: somebody has deleted it, or its
    /// group, which is back now.
    pub(super) fn look(&self, has_entry: bool, has_group: bool) {
        let mut state = self.state();
        let had_group = std::mem::replace(&mut state.has_group, has_group);
        let was_seen = std::mem::replace(&mut state.is_seen, has_entry);
        if state.phase == Phase::Here && !has_entry && has_group && (was_seen || !had_group) {
            state.is_written = false;
            drop(state);
            self.news.notify_one();
        }
    }

    /// Whether there is nothing to be kept of it.
    pub(super) fn is_idle(&self) -> bool {
        self.state().phase == Phase::Idle
    }

    /// Since when it was connected and when it left, if its entry does not say so yet;
    /// who is still connected leaves at `now`.
    pub(super) fn leaving(&self, now: OffsetDateTime) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let state = self.state();
        match state.phase {
            Phase::Here => Some((state.latest, now)),
            Phase::Gone(at) => Some((state.latest, at)),
            Phase::Idle | Phase::Awaited(_) => None,
        }
    }

    pub(super) fn next(&self) -> Step {
        let state = self.state();
        match state.phase {
            Phase::Idle => Step::End,
            Phase::Here => match (state.connections.values().max_by_key(|one| one.at), &state.health) {
                (Some(last), _) if !state.is_written => Step::Connect(last.clone()),
                (_, Some(health)) => Step::Tell(health.clone()),
                (_, None) => Step::Wait,
            },
            Phase::Gone(at) => Step::Leave(state.latest, at),
            Phase::Awaited(until) if until > Instant::now() => Step::Until(until),
            Phase::Awaited(_) => Step::Clean,
        }
    }

    /// A step is done, or cannot be; of one that has left, `awaited` is until when it
    /// may come back, if it is for this istiod to wait.
    pub(super) fn done(&self, step: &Step, awaited: Option<Instant>) {
        let mut state = self.state();
        match step {
            Step::Connect(connected) if state.connections.values().all(|one| one.at <= connected.at) => {
                state.is_written = true;
            }
            Step::Tell(health) if state.health.as_ref() == Some(health) => state.health = None,
            Step::Leave(_, at) if state.phase == Phase::Gone(*at) => {
                state.phase = awaited.map_or(Phase::Idle, Phase::Awaited);
            }
            Step::Clean if matches!(state.phase, Phase::Awaited(_)) => state.phase = Phase::Idle,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::Kind;
    use proto::envoy::config::core::v3::Node;

    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn workload() -> Workload {
        let key = Key { kind: Kind::WorkloadEntry, namespace: "vms".into(), name: "a".into() };
        Workload::new(key, Some("web".into()))
    }

    fn connected(seconds: i64) -> Connected {
        let node = Node { id: "sidecar~10.0.0.7~a.vms~x".into(), ..Node::default() };
        let proxy = Arc::new(Proxy::from_node(&node).unwrap());
        Connected { proxy, caller: None, at: at(seconds) }
    }

    fn health(why: Option<&str>) -> Health {
        Health { why: why.map(str::to_owned), at: at(9) }
    }

    #[tokio::test(start_paused = true)]
    async fn it_has_left_when_its_last_connection_has() {
        let workload = workload();
        assert!(workload.is_idle());
        workload.enter(2, connected(20), true);
        workload.enter(1, connected(10), true);
        workload.leave(2, at(30));
        assert!(matches!(workload.next(), Step::Wait));
        workload.leave(1, at(40));
        let leave = workload.next();
        assert!(matches!(leave, Step::Leave(since, end) if since == at(20) && end == at(40)), "{leave:?}");
        let until = Instant::now() + Duration::from_secs(10);
        workload.done(&leave, Some(until));
        assert!(matches!(workload.next(), Step::Until(time) if time == until));
        tokio::time::advance(Duration::from_secs(10)).await;
        let clean = workload.next();
        assert!(matches!(clean, Step::Clean));
        // It comes back at the last moment.
        workload.enter(3, connected(50), true);
        workload.done(&clean, None);
        assert!(matches!(workload.next(), Step::Wait));
        workload.leave(3, at(60));
        workload.done(&workload.next(), None);
        assert!(matches!(workload.next(), Step::End) && workload.is_idle());
    }

    #[test]
    fn what_was_told_last_is_written_after_the_connection() {
        let workload = workload();
        workload.enter(1, connected(10), false);
        workload.told(health(Some("x")));
        workload.told(health(None));
        let connect = workload.next();
        assert!(matches!(&connect, Step::Connect(one) if one.at == at(10)), "{connect:?}");
        workload.done(&connect, None);
        let tell = workload.next();
        assert!(matches!(&tell, Step::Tell(health) if health.why.is_none()), "{tell:?}");
        workload.told(health(Some("y")));
        workload.done(&tell, None);
        let tell = workload.next();
        assert!(matches!(&tell, Step::Tell(health) if health.why.is_some()), "{tell:?}");
        workload.leave(1, at(20));
        assert!(matches!(workload.next(), Step::Leave(..)), "nobody asks how it was");
    }

    #[test]
    fn a_connection_that_is_left_of_several_is_written_once() {
        let workload = workload();
        workload.enter(2, connected(20), true);
        workload.enter(1, connected(10), true);
        workload.leave(2, at(30));
        workload.look(true, true);
        workload.look(false, true);
        let step = workload.next();
        assert!(matches!(&step, Step::Connect(one) if one.at == at(10)), "{step:?}");
        workload.done(&step, None);
        assert!(matches!(workload.next(), Step::Wait));
    }

    #[test]
    fn an_entry_that_is_deleted_is_made_again_when_its_group_is_there() {
        let workload = workload();
        workload.enter(1, connected(10), true);
        let is_due = |has_entry, has_group| {
            workload.look(has_entry, has_group);
            let step = workload.next();
            workload.done(&step, None);
            matches!(step, Step::Connect(_))
        };
        assert!(!is_due(false, true), "it was not seen yet");
        assert!(!is_due(true, true));
        assert!(is_due(false, true));
        assert!(!is_due(false, true), "once");
        assert!(!is_due(true, true) && !is_due(false, false), "nothing to make it of");
        assert!(is_due(false, true));
    }
}
