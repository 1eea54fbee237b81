//! Values that are made when they are first asked for, once for all proxies.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Values by what they were made from. It belongs to one snapshot: what a value
/// depends on besides its key never changes in it.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(RwLock<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Ord, V> Memo<K, V> {
    /// The value of a key. Two that ask at once may both make it; one is kept.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
            values.entry(key).or_insert(made).clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once() {
        let memo = Memo::default();
        assert_eq!(*memo.get(1, || "a"), "a");
        assert_eq!(*memo.get(1, || unreachable!()), "a");
        assert_eq!(*memo.get(2, || "b"), "b");
    }
}
