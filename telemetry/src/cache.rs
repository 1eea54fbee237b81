//! What was worked out for a request and will be asked for again, by the bytes that
//! decided it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

/// As many parts as there may well be workers; each uses one of its own.
const PARTS: usize = 16;
/// Most entries of a part. A part that is full is emptied: rare, and cheap to refill.
const MOST: usize = 1024;
/// Longest key that is kept, in bytes: clients choose part of it, and it is memory.
const LONGEST: usize = 2048;

/// A cache of one filter configuration.
#[derive(Debug)]
pub struct Cache<T> {
    parts: Box<[Mutex<Part<T>>]>,
}

#[derive(Debug)]
struct Part<T> {
    generation: u64,
    known: HashMap<Box<[u8]>, Arc<T>, RandomState>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        let part = || Mutex::new(Part { generation: 0, known: HashMap::default() });
        Self { parts: (0..PARTS).map(|_| part()).collect() }
    }
}

impl<T> Cache<T> {
    /// What is known for `key`, else what `make` makes. Everything of another
    /// `generation` is dropped.
    pub fn get(&self, key: &[u8], generation: u64, make: impl FnOnce() -> T) -> Arc<T> {
        let part = self.parts.get(own_part()).filter(|_| key.len() <= LONGEST);
        let Some(part) = part else { return Arc::new(make()) };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.generation != generation {
            part.generation = generation;
            part.known.clear();
        }
        if let Some(known) = part.known.get(key) {
            return Arc::clone(known);
        }
        let made = Arc::new(make());
        if part.known.len() >= MOST {
            part.known.clear();
        }
        part.known.insert(key.into(), Arc::clone(&made));
        made
    }
}

/// A number of this thread.
fn own_part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use super::{Cache, LONGEST, MOST};

    #[test]
    fn a_value_is_made_once_in_a_generation() {
        let cache = Cache::default();
        assert_eq!(*cache.get(b"a", 0, || 1), 1);
        assert_eq!(*cache.get(b"a", 0, || 2), 1);
        assert_eq!(*cache.get(b"b", 0, || 3), 3);
        assert_eq!(*cache.get(b"a", 1, || 2), 2);
    }

    #[test]
    fn a_long_key_is_not_kept() {
        let cache = Cache::default();
        let key = [7; LONGEST + 1];
        assert_eq!((*cache.get(&key, 0, || 1), *cache.get(&key, 0, || 2)), (1, 2));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let cache = Cache::default();
        for key in 0..2 * MOST {
            cache.get(&key.to_ne_bytes(), 0, || key);
        }
        assert!(cache.parts.iter().all(|part| part.lock().unwrap().known.len() <= MOST));
    }
}
