//! What all kinds of a cluster say together, and what of it is different from
//! what was told before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Key, Kind, Object, Problem};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::list_watch::Event;
use super::object::Seen;
use super::selectors::Selectors;
use crate::Update;

type Id = (Arc<str>, Arc<str>);

/// Takes what tasks of kinds see, and tells updates, until nobody wants them.
pub(super) async fn run(
    kinds: Vec<Kind>,
    mut seen: mpsc::Receiver<(Kind, Event<Seen>)>,
    mut selectors: watch::Receiver<Selectors>,
    tx: mpsc::Sender<Update>,
) {
    let mut cluster = Cluster::new(kinds, selectors.borrow_and_update().clone());
    let mut is_first = true;
    loop {
        let is_due = cluster.is_synced() && (is_first || cluster.has_news());
        tokio::select! {
            // What was seen already is told together.
            biased;
            event = seen.recv() => match event {
                Some((kind, event)) => cluster.take(kind, event),
                None => return,
            },
            Ok(()) = selectors.changed() => {
                let selectors = selectors.borrow_and_update().clone();
                cluster.select(selectors);
            }
            permit = tx.reserve(), if is_due => {
                let Ok(permit) = permit else { return };
                let update = cluster.update();
                if is_first {
                    info!(target: "kube", objects = update.apply.len(), problems = update.problems.len(), "all objects of the cluster are read");
                }
                is_first = false;
                permit.send(update);
            }
        }
    }
}

/// Everything that was seen, and what nobody was told of it yet.
struct Cluster {
    objects: BTreeMap<Kind, BTreeMap<Id, Arc<Object>>>,
    problems: BTreeMap<Key, Vec<Problem>>,
    selectors: Selectors,
    /// Kinds that were not listed yet.
    awaited: BTreeSet<Kind>,
    apply: BTreeMap<Key, Arc<Object>>,
    delete: BTreeSet<Key>,
    problems_changed: bool,
}

impl Cluster {
    fn new(kinds: Vec<Kind>, selectors: Selectors) -> Self {
        Self {
            objects: BTreeMap::new(),
            problems: BTreeMap::new(),
            selectors,
            awaited: kinds.into_iter().collect(),
            apply: BTreeMap::new(),
            delete: BTreeSet::new(),
            problems_changed: false,
        }
    }

    fn is_synced(&self) -> bool {
        self.awaited.is_empty()
    }

    fn has_news(&self) -> bool {
        !self.apply.is_empty() || !self.delete.is_empty() || self.problems_changed
    }

    fn take(&mut self, kind: Kind, event: Event<Seen>) {
        match event {
            Event::Listed(all) => {
                let there: BTreeSet<Id> = all.iter().map(|seen| id(&seen.key)).collect();
                let known = self.objects.get(&kind).into_iter().flat_map(|objects| objects.keys());
                let gone: Vec<Key> = known
                    .filter(|id| !there.contains(*id))
                    .map(|(namespace, name)| Key { kind, namespace: namespace.clone(), name: name.clone() })
                    .collect();
                let of_gone = |key: &&Key| key.kind == kind && !there.contains(&id(key));
                let flawed: Vec<Key> = self.problems.keys().filter(of_gone).cloned().collect();
                for key in gone.iter().chain(&flawed) {
                    self.set(key, None, Vec::new());
                }
                for seen in all {
                    self.set(&seen.key, seen.object.as_ref(), seen.problems);
                }
                self.awaited.remove(&kind);
            }
            Event::Set(seen) => self.set(&seen.key, seen.object.as_ref(), seen.problems),
            Event::Gone(seen) => self.set(&seen.key, None, Vec::new()),
        }
    }

    fn set(&mut self, key: &Key, object: Option<&Arc<Object>>, problems: Vec<Problem>) {
        let before = if problems.is_empty() {
            self.problems.remove(key)
        } else {
            self.problems.insert(key.clone(), problems)
        };
        let now = self.problems.get(key);
        if before.as_ref() != now {
            self.problems_changed = true;
            let new = now
                .into_iter()
                .flatten()
                .filter(|problem| before.as_ref().is_none_or(|old| !old.contains(problem)));
            new.for_each(|problem| warn!(target: "config", "{problem}"));
        }
        let of_kind = self.objects.entry(key.kind).or_default();
        let old = match object {
            Some(object) => of_kind.insert(id(key), object.clone()),
            None => of_kind.remove(&id(key)),
        };
        // Most of what a relist brings, and much of what changes, says nothing new.
        let is_same = match (&old, object) {
            (Some(old), Some(new)) => old.meta == new.meta && old.spec == new.spec,
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        let selection_before = (key.kind == Kind::Namespace && !self.selectors.is_empty())
            .then(|| old.as_ref().is_some_and(|old| self.fits(old)));
        if key.kind == Kind::Namespace || self.is_selected(&key.namespace) {
            self.tell(key, object);
        }
        if let Some(before) = selection_before {
            let now = object.is_some_and(|now| self.fits(now));
            if before != now {
                self.tell_namespace(&key.name, now);
            }
        }
    }

    fn tell(&mut self, key: &Key, object: Option<&Arc<Object>>) {
        match object {
            Some(object) => {
                self.delete.remove(key);
                self.apply.insert(key.clone(), object.clone());
            }
            None => {
                self.apply.remove(key);
                self.delete.insert(key.clone());
            }
        }
    }

    /// A namespace has become part of the mesh, or is no longer.
    fn tell_namespace(&mut self, namespace: &str, is_selected: bool) {
        let inside: Vec<Arc<Object>> = self
            .objects
            .values()
            .flat_map(|objects| objects.values())
            .filter(|object| &*object.key.namespace == namespace)
            .cloned()
            .collect();
        for object in inside {
            self.tell(&object.key, is_selected.then_some(&object));
        }
    }

    fn select(&mut self, selectors: Selectors) {
        if selectors == self.selectors {
            return;
        }
        let namespaces: BTreeSet<Arc<str>> = self
            .objects
            .values()
            .flat_map(|objects| objects.keys())
            .map(|(namespace, _)| namespace.clone())
            .filter(|namespace| !namespace.is_empty())
            .collect();
        let was_selected: Vec<bool> =
            namespaces.iter().map(|namespace| self.is_selected(namespace)).collect();
        self.selectors = selectors;
        for (namespace, before) in namespaces.iter().zip(was_selected) {
            let now = self.is_selected(namespace);
            if before != now {
                self.tell_namespace(namespace, now);
            }
        }
        self.problems_changed = true;
    }

    /// Whether objects of the namespace count; those without a namespace always do.
    fn is_selected(&self, namespace: &str) -> bool {
        if namespace.is_empty() || self.selectors.is_empty() {
            return true;
        }
        let id = (Arc::from(""), Arc::from(namespace));
        self.objects
            .get(&Kind::Namespace)
            .and_then(|all| all.get(&id))
            .is_some_and(|object| self.fits(object))
    }

    fn fits(&self, namespace: &Object) -> bool {
        self.selectors.iter().any(|selector| selector.matches(&namespace.meta.labels))
    }

    fn update(&mut self) -> Update {
        self.problems_changed = false;
        let problems = self.problems.iter().filter(|(key, _)| self.is_selected(&key.namespace));
        Update {
            problems: problems.flat_map(|(_, problems)| problems.iter().cloned()).collect(),
            apply: std::mem::take(&mut self.apply).into_values().collect(),
            moved: Vec::new(),
            delete: std::mem::take(&mut self.delete).into_iter().collect(),
        }
    }
}

fn id(key: &Key) -> Id {
    (key.namespace.clone(), key.name.clone())
}

#[cfg(test)]
mod tests;
