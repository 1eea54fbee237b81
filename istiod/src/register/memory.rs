//! Entries of a mesh without a cluster: kept here, as objects beside those of the
//! directory. Of an entry that both have, the directory's is in force.
//!
//! Agents connect again after a restart of istiod, and register again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::kube::Condition;
use config::{Key, Kind, Object, Problem, Severity, Spec, yaml};
use names::annotation::{CONNECTED_AT, DISCONNECTED_AT, WORKLOAD_CONTROLLER};
use runtime::tasks::Tasks;
use serde_json::{Value, json};
use source::Update;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use super::marks;
use super::store::{Failure, Origin, version};

/// What stands before problems in place of a file.
const SOURCE: &str = "registered";
/// Updates that wait for their reader; later ones are gathered meanwhile.
const QUEUE: usize = 1;

/// Entries that are kept here; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    all: Arc<Mutex<All>>,
    news: Arc<Notify>,
}

/// An entry of a workload that has registered itself.
#[derive(Debug)]
struct Own {
    group: String,
    entry: Value,
    object: Arc<Object>,
}

#[derive(Debug, Default)]
struct All {
    /// Entries of the directory.
    written: BTreeMap<Key, Arc<Object>>,
    /// What proxies have made of those.
    marked: BTreeMap<Key, Value>,
    own: BTreeMap<Key, Own>,
    /// Whether the directory was read.
    is_read: bool,
    /// Problems of the directory.
    problems: Vec<Problem>,
    /// What nobody was told yet; without an object: that it is gone.
    changed: BTreeMap<Key, Option<Arc<Object>>>,
    moved: BTreeMap<Key, Arc<Object>>,
    problems_changed: bool,
    /// Counts versions of entries.
    versions: u64,
}

impl Memory {
    /// Adds what is kept here to what a directory says.
    pub(super) fn beside(tasks: &Tasks, files: mpsc::Receiver<Update>) -> (Self, mpsc::Receiver<Update>) {
        let memory = Self::default();
        let (tx, rx) = mpsc::channel(QUEUE);
        tasks.spawn("registered workloads", memory.clone().run(files, tx));
        (memory, rx)
    }

    async fn run(self, mut files: mpsc::Receiver<Update>, tx: mpsc::Sender<Update>) {
        loop {
            let is_due = self.all().has_news();
            tokio::select! {
                // What was seen already is told together.
                biased;
                update = files.recv() => match update {
                    Some(update) => self.all().read(update),
                    None => return,
                },
                permit = tx.reserve(), if is_due => {
                    let Ok(permit) = permit else { return };
                    permit.send(self.all().update());
                }
                () = self.news.notified() => {}
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // Whole after each step.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key, origin: Origin) -> Option<Value> {
        let all = self.all();
        match origin {
            Origin::Registered => Some(all.own.get(key)?.entry.clone()),
            Origin::Written => {
                let object = all.written.get(key)?;
                let now = of_object(object);
                let Some(mut entry) = all.marked.get(key).cloned() else { return Some(now) };
                // Of what was written of it, only the marks are ours.
                entry["spec"] = now["spec"].clone();
                Some(entry)
            }
        }
    }

    pub(super) fn create(&self, key: &Key, group: &str, mut entry: Value) -> Result<(), Failure> {
        let mut all = self.all();
        if all.own.contains_key(key) {
            return Err(Failure::Changed);
        }
        let now = OffsetDateTime::now_utc();
        entry["metadata"]["creationTimestamp"] =
            marks::format(now.replace_nanosecond(0).unwrap_or(now)).into();
        let own = all.own(group.to_owned(), entry)?;
        if let Some(written) = all.written.get(key) {
            warn!(target: "config", "{}", conflict(written, group));
        }
        all.own.insert(key.clone(), own);
        all.own_changed(key);
        drop(all);
        self.news.notify_one();
        Ok(())
    }

    pub(super) fn replace(&self, key: &Key, origin: Origin, entry: Value) -> Result<(), Failure> {
        let mut all = self.all();
        let gone = || Failure::Missing(format!("{key} is gone"));
        match origin {
            Origin::Registered => {
                let old = all.own.get(key).ok_or_else(gone)?;
                if version(&old.entry) != version(&entry) {
                    return Err(Failure::Changed);
                }
                let group = old.group.clone();
                let own = all.own(group, entry)?;
                all.own.insert(key.clone(), own);
                all.own_changed(key);
            }
            Origin::Written => {
                let object = all.written.get(key).ok_or_else(gone)?.clone();
                let object = marked(&object, &entry);
                all.marked.insert(key.clone(), entry);
                all.changed.insert(key.clone(), Some(object));
            }
        }
        drop(all);
        self.news.notify_one();
        Ok(())
    }

    pub(super) fn delete(&self, key: &Key, entry: &Value) -> Result<(), Failure> {
        let mut all = self.all();
        let Some(own) = all.own.get(key) else { return Ok(()) };
        if version(&own.entry) != version(entry) {
            return Err(Failure::Changed);
        }
        all.remove(key);
        drop(all);
        self.news.notify_one();
        Ok(())
    }
}

impl All {
    fn has_news(&self) -> bool {
        self.is_read && (!self.changed.is_empty() || !self.moved.is_empty() || self.problems_changed)
    }

    /// Takes what the directory says.
    fn read(&mut self, update: Update) {
        // The first update of a source is told, whatever it has.
        self.problems_changed |= !self.is_read || self.problems != update.problems;
        self.is_read = true;
        self.problems = update.problems;
        for key in update.delete {
            match key.kind {
                Kind::WorkloadEntry => {
                    self.written.remove(&key);
                    self.marked.remove(&key);
                    if self.own.contains_key(&key) {
                        self.problems_changed = true;
                        self.own_changed(&key);
                        continue;
                    }
                }
                Kind::WorkloadGroup => self.remove_group(&key),
                _ => {}
            }
            self.moved.remove(&key);
            self.changed.insert(key, None);
        }
        for (object, is_moved) in update
            .apply
            .into_iter()
            .map(|object| (object, false))
            .chain(update.moved.into_iter().map(|object| (object, true)))
        {
            let key = object.key.clone();
            let mut object = object;
            if key.kind == Kind::WorkloadEntry {
                self.written.insert(key.clone(), object.clone());
                if let Some(entry) = self.marked.get(&key) {
                    object = marked(&object, entry);
                }
                if let Some(own) = self.own.get(&key) {
                    self.problems_changed = true;
                    if !is_moved {
                        warn!(target: "config", "{}", conflict(&object, &own.group));
                    }
                }
            }
            if is_moved && !self.changed.contains_key(&key) {
                self.moved.insert(key, object);
            } else {
                self.moved.remove(&key);
                self.changed.insert(key, Some(object));
            }
        }
    }

    /// A group is gone, and with it all that it owns, as in a cluster.
    fn remove_group(&mut self, group: &Key) {
        let of_group =
            |(key, own): &(&Key, &Own)| key.namespace == group.namespace && own.group == *group.name;
        let gone: Vec<Key> = self.own.iter().filter(of_group).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        self.own.remove(key);
        self.own_changed(key);
        self.problems_changed |= self.written.contains_key(key);
    }

    /// An entry with a version of its own, and the object that it is.
    fn own(&mut self, group: String, mut entry: Value) -> Result<Own, Failure> {
        self.versions += 1;
        entry["metadata"]["resourceVersion"] = self.versions.to_string().into();
        let contents = yaml::read_live(&Arc::from(SOURCE), Kind::WorkloadEntry, entry.clone());
        if let Some(problem) = contents.problems.iter().find(|problem| problem.severity == Severity::Error) {
            return Err(Failure::Refused(problem.to_string()));
        }
        let object = contents.objects.into_iter().next();
        let object = object.ok_or_else(|| Failure::Refused("it is no WorkloadEntry".into()))?;
        Ok(Own { group, entry, object: Arc::new(object) })
    }

    fn own_changed(&mut self, key: &Key) {
        if self.written.contains_key(key) {
            self.problems_changed = true;
            return;
        }
        self.changed.insert(key.clone(), self.own.get(key).map(|own| own.object.clone()));
    }

    fn update(&mut self) -> Update {
        self.problems_changed = false;
        let mut update = Update { problems: self.problems.clone(), ..Update::default() };
        for (key, own) in &self.own {
            update.problems.extend(self.written.get(key).map(|written| conflict(written, &own.group)));
        }
        for (key, object) in std::mem::take(&mut self.changed) {
            match object {
                Some(object) => update.apply.push(object),
                None => update.delete.push(key),
            }
        }
        update.moved = std::mem::take(&mut self.moved).into_values().collect();
        update
    }
}

/// What is said of an entry of the directory that stands in the way of a workload.
fn conflict(written: &Object, group: &str) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: Some(written.key.clone()),
        position: written.position.clone(),
        field: "metadata.name".into(),
        message: format!(
            "a workload of WorkloadGroup {group} registers itself under this name: what is written here is in \
             force, and the workload's own entry is not; delete this one, or give it another name"
        ),
    }
}

/// An entry of the directory as JSON, so far as marks are concerned.
fn of_object(object: &Object) -> Value {
    let Spec::WorkloadEntry(entry) = &object.spec else { return Value::Null };
    let condition = |condition: &Condition| json!({"type": condition.kind, "status": condition.status});
    json!({
        "metadata": {
            "name": &*object.key.name, "namespace": &*object.key.namespace, "annotations": object.meta.annotations,
        },
        "spec": {"serviceAccount": entry.service_account},
        "status": {"conditions": entry.status.conditions.iter().map(condition).collect::<Vec<_>>()},
    })
}

/// An entry of the directory with what its proxy has made of it.
fn marked(object: &Arc<Object>, entry: &Value) -> Arc<Object> {
    let mut object = object.clone();
    let inner = Arc::make_mut(&mut object);
    for name in [WORKLOAD_CONTROLLER, CONNECTED_AT, DISCONNECTED_AT] {
        match entry["metadata"]["annotations"][name].as_str() {
            Some(value) => drop(inner.meta.annotations.insert(name.to_owned(), value.to_owned())),
            None => drop(inner.meta.annotations.remove(name)),
        }
    }
    if let Spec::WorkloadEntry(written) = &mut inner.spec {
        let conditions = entry["status"]["conditions"].as_array();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        written.status.conditions = conditions
            .into_iter()
            .flatten()
            .map(|one| Condition { kind: text(&one["type"]), status: text(&one["status"]) })
            .collect();
    }
    object
}

#[cfg(test)]
mod tests;
