//! Findings as they are made.

use std::cell::RefCell;
use std::collections::BTreeMap;

use config::Key;

use super::{Finding, Topic};

/// Messages, with the objects that they are about, by topic and key.
type Found = BTreeMap<(Topic, String), (String, Option<Key>)>;

/// Gathers what is found while something is generated; of each key the first.
#[derive(Debug, Default)]
pub(crate) struct Notes(RefCell<Found>);

/// More of one generation are not kept: a mesh that is so wrong is told enough.
const MOST: usize = 1000;

impl Notes {
    /// Notes something, unless the key has something already.
    pub(crate) fn add(
        &self,
        topic: Topic,
        key: String,
        object: Option<Key>,
        message: impl FnOnce() -> String,
    ) {
        let mut all = self.0.borrow_mut();
        if all.len() < MOST {
            all.entry((topic, key)).or_insert_with(|| (message(), object));
        }
    }

    /// All of them, found for a proxy.
    pub(crate) fn take(self, proxy: &str) -> Vec<Finding> {
        let all = self.0.into_inner().into_iter();
        all.map(|((topic, key), (message, object))| Finding {
            topic,
            key,
            message,
            proxy: proxy.to_owned(),
            object,
        })
        .collect()
    }
}
