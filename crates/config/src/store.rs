//! The objects in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Key, Kind, Object, SpecKind};

type Objects = BTreeMap<(Arc<str>, Arc<str>), Arc<Object>>;

/// Objects by kind, namespace and name. A clone is a snapshot: it shares what
/// does not change afterwards.
#[derive(Clone, Debug, Default)]
pub struct Store {
    kinds: BTreeMap<Kind, Arc<Objects>>,
}

impl Store {
    /// Sets an object; `false` when one that says the same was there already,
    /// of which only the position becomes another one.
    pub fn apply(&mut self, object: Arc<Object>) -> bool {
        let id = (object.key.namespace.clone(), object.key.name.clone());
        let objects = self.kinds.entry(object.key.kind).or_default();
        let old = objects.get(&id);
        if old.is_some_and(|old| **old == *object) {
            return false;
        }
        let is_new = old.is_none_or(|old| old.meta != object.meta || old.spec != object.spec);
        Arc::make_mut(objects).insert(id, object);
        is_new
    }

    /// Removes an object; `false` when it was not there.
    pub fn delete(&mut self, key: &Key) -> bool {
        let id = (key.namespace.clone(), key.name.clone());
        self.kinds.get_mut(&key.kind).is_some_and(|objects| Arc::make_mut(objects).remove(&id).is_some())
    }

    /// One object.
    #[must_use]
    pub fn get<T: SpecKind>(&self, namespace: &str, name: &str) -> Option<(&Object, &T)> {
        let objects = self.kinds.get(&T::KIND)?;
        let object = objects.get(&(Arc::from(namespace), Arc::from(name)))?;
        Some((object, T::of(&object.spec)?))
    }

    /// The object of that name.
    #[must_use]
    pub fn object(&self, key: &Key) -> Option<&Arc<Object>> {
        self.kinds.get(&key.kind)?.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All objects of a kind by namespace and name.
    pub fn all<'a, T: SpecKind + 'a>(&'a self) -> impl Iterator<Item = (&'a Object, &'a T)> {
        let objects = self.kinds.get(&T::KIND).into_iter().flat_map(|objects| objects.values());
        objects.filter_map(|object| Some((&**object, T::of(&object.spec)?)))
    }

    /// All objects of a kind by namespace and name, to be kept.
    pub fn shared(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.get(&kind).into_iter().flat_map(|objects| objects.values())
    }

    /// All objects of a kind, the oldest first.
    #[must_use]
    pub fn by_age<T: SpecKind>(&self) -> Vec<(&Object, &T)> {
        let mut all: Vec<_> = self.all::<T>().collect();
        all.sort_by(|(a, _), (b, _)| a.by_age(b));
        all
    }

    /// A store with the objects of one kind only, which both share.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        let kinds = self.kinds.get(&kind).map(|objects| (kind, objects.clone()));
        Self { kinds: kinds.into_iter().collect() }
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.values().map(|objects| objects.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.values().flat_map(|objects| objects.values())
    }
}
