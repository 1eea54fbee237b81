//! Who is connected, and who has to leave when there are too many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A limited number of connections.
#[derive(Debug)]
pub(super) struct Slots {
    limit: usize,
    // Counts what happens on all connections: a clock that never stands still.
    clock: Arc<AtomicU64>,
    open: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    is_local: bool,
    last: Arc<AtomicU64>,
    evict: CancellationToken,
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    activity: Activity,
    evict: CancellationToken,
}

/// Told when something happens on a connection.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    clock: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, clock: Arc::default(), open: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// A place for a new connection. When all are taken, the connection on
    /// which nothing has happened for longest loses its own; one from this
    /// machine only when there are no others, because probes come from here.
    pub(super) fn take(self: &Arc<Self>, is_local: bool) -> Slot {
        let activity = Activity { clock: self.clock.clone(), last: Arc::default() };
        activity.tell();
        let evict = CancellationToken::new();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.lock();
        if open.len() >= self.limit {
            let rank = |entry: &Entry| (entry.is_local, entry.last.load(Ordering::Relaxed));
            let victim = open.iter().min_by_key(|(_, entry)| rank(entry)).map(|(id, _)| *id);
            if let Some(entry) = victim.and_then(|id| open.remove(&id)) {
                entry.evict.cancel();
            }
        }
        open.insert(id, Entry { is_local, last: activity.last.clone(), evict: evict.clone() });
        drop(open);
        Slot { slots: self.clone(), id, activity, evict }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub(super) fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Completes when the place is needed for another.
    pub(super) async fn evicted(&self) {
        self.evict.cancelled().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(&self.id);
    }
}

impl Activity {
    pub(super) fn tell(&self) {
        self.last.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(slots: &[&Slot]) -> Vec<bool> {
        slots.iter().map(|slot| slot.evict.is_cancelled()).collect()
    }

    #[test]
    fn the_quietest_makes_room_and_this_machine_last() {
        let slots = Slots::new(3);
        let (local, first, second) = (slots.take(true), slots.take(false), slots.take(false));
        first.activity.tell();
        let third = slots.take(false);
        assert_eq!(evicted(&[&local, &first, &second, &third]), [false, false, true, false]);
        let fourth = slots.take(true);
        assert_eq!(evicted(&[&local, &first, &third, &fourth]), [false, true, false, false]);
        let fifth = slots.take(true);
        assert_eq!(evicted(&[&local, &third, &fourth, &fifth]), [false, true, false, false]);
        let sixth = slots.take(true);
        assert_eq!(evicted(&[&local, &fourth, &fifth, &sixth]), [true, false, false, false]);
    }

    #[test]
    fn who_leaves_gives_its_place_back() {
        let slots = Slots::new(2);
        let first = slots.take(false);
        drop(slots.take(false));
        let second = slots.take(false);
        assert_eq!(evicted(&[&first, &second]), [false, false]);
        assert_eq!(slots.lock().len(), 2);
    }
}
