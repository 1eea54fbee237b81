use config::kube::WorkloadEntry;
use config::{SpecKind as _, Store};

use super::*;

const HERE: &str = "istiod-a";

fn key(kind: Kind, name: &str) -> Key {
    Key { kind, namespace: "vms".into(), name: name.into() }
}

fn file(text: &str) -> Update {
    let contents = yaml::read("a.yaml", text);
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    Update { apply: contents.objects.into_iter().map(Arc::new).collect(), ..Update::default() }
}

fn written(address: &str) -> Update {
    file(&format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a, namespace: vms}}\n\
         spec: {{address: {address}, serviceAccount: web}}\n"
    ))
}

fn entry(address: &str) -> Value {
    json!({
        "metadata": {"name": "a", "namespace": "vms", "annotations": {"istio.io/autoRegistrationGroup": "web"}},
        "spec": {"address": address, "labels": {"app": "web"}},
    })
}

/// A directory without objects that was read, and what was told so far.
struct Stage {
    memory: Memory,
    store: Store,
    problems: Vec<Problem>,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { memory: Memory::default(), store: Store::default(), problems: Vec::new() };
        stage.memory.all().read(Update::default());
        stage
    }

    fn create(&self, address: &str) -> Result<(), Failure> {
        self.memory.create(&key(Kind::WorkloadEntry, "a"), "web", entry(address))
    }

    fn read(&self, update: Update) {
        self.memory.all().read(update);
    }

    fn delete(&self, kind: Kind, name: &str) {
        self.read(Update { delete: vec![key(kind, name)], ..Update::default() });
    }

    /// The entry in force.
    fn take(&mut self) -> Option<Arc<Object>> {
        let mut all = self.memory.all();
        if all.has_news() {
            let update = all.update();
            assert!(!all.has_news(), "everything is told");
            update.apply.into_iter().chain(update.moved).for_each(|object| {
                self.store.apply(object);
            });
            update.delete.iter().for_each(|key| {
                self.store.delete(key);
            });
            self.problems = update.problems;
        }
        self.store.object(&key(Kind::WorkloadEntry, "a")).cloned()
    }

    fn address(&mut self) -> Option<String> {
        self.take().and_then(|object| WorkloadEntry::of(&object.spec).map(|entry| entry.address.clone()))
    }
}

#[test]
fn nothing_is_told_before_the_directory_was_read() {
    let memory = Memory::default();
    memory.create(&key(Kind::WorkloadEntry, "a"), "web", entry("10.0.0.7")).unwrap();
    assert!(!memory.all().has_news());
    memory.all().read(written("10.0.0.8"));
    assert!(memory.all().has_news());
}

#[test]
fn an_entry_is_an_object_as_long_as_it_is_kept() {
    let mut stage = Stage::new();
    stage.create("10.0.0.7").unwrap();
    assert_eq!(stage.create("10.0.0.7"), Err(Failure::Changed));
    let object = stage.take().unwrap();
    assert_eq!(object.meta.annotations["istio.io/autoRegistrationGroup"], "web");
    assert!(object.meta.creation_timestamp.is_some());
    let entry = stage.memory.get(&object.key, Origin::Registered).unwrap();
    let new = marks::connected(&entry, HERE, OffsetDateTime::now_utc()).unwrap();
    stage.memory.replace(&object.key, Origin::Registered, new.clone()).unwrap();
    // It has another version by now.
    assert_eq!(stage.memory.replace(&object.key, Origin::Registered, new), Err(Failure::Changed));
    assert_eq!(stage.memory.delete(&object.key, &entry), Err(Failure::Changed));
    assert_eq!(stage.take().unwrap().meta.annotations[WORKLOAD_CONTROLLER], HERE);
    let entry = stage.memory.get(&object.key, Origin::Registered).unwrap();
    stage.memory.delete(&object.key, &entry).unwrap();
    assert!(stage.take().is_none());
    stage.memory.delete(&object.key, &entry).unwrap();
}

#[test]
fn an_entry_that_cannot_be_one_is_refused() {
    let stage = Stage::new();
    let failure = stage.create("not an address!").unwrap_err();
    assert!(matches!(&failure, Failure::Refused(why) if why.contains("spec.address")), "{failure}");
}

#[test]
fn the_directorys_entry_wins_as_long_as_it_is_there() {
    let mut stage = Stage::new();
    stage.create("10.0.0.7").unwrap();
    assert_eq!(stage.address().as_deref(), Some("10.0.0.7"));
    stage.read(written("10.0.0.8"));
    assert_eq!(stage.address().as_deref(), Some("10.0.0.8"));
    let problem = stage.problems[0].to_string();
    assert!(
        problem.starts_with("a.yaml:") && problem.contains("WorkloadGroup web registers itself"),
        "{problem}"
    );
    // What the workload does meanwhile changes nothing.
    let key = key(Kind::WorkloadEntry, "a");
    let entry = stage.memory.get(&key, Origin::Registered).unwrap();
    let new = marks::connected(&entry, HERE, OffsetDateTime::now_utc()).unwrap();
    stage.memory.replace(&key, Origin::Registered, new).unwrap();
    assert_eq!((stage.address().as_deref(), stage.problems.len()), (Some("10.0.0.8"), 1));
    stage.delete(Kind::WorkloadEntry, "a");
    assert_eq!((stage.address().as_deref(), stage.problems.len()), (Some("10.0.0.7"), 0));
    // The other way round.
    stage.read(written("10.0.0.8"));
    let entry = stage.memory.get(&key, Origin::Registered).unwrap();
    stage.memory.delete(&key, &entry).unwrap();
    assert_eq!((stage.address().as_deref(), stage.problems.len()), (Some("10.0.0.8"), 0));
}

#[test]
fn entries_go_with_their_group() {
    let mut stage = Stage::new();
    stage.create("10.0.0.7").unwrap();
    stage.delete(Kind::WorkloadGroup, "other");
    assert!(stage.take().is_some());
    stage.delete(Kind::WorkloadGroup, "web");
    assert!(stage.take().is_none());
}

#[test]
fn an_entry_of_the_directory_takes_what_its_proxy_says() {
    let mut stage = Stage::new();
    stage.read(written("10.0.0.8"));
    let key = key(Kind::WorkloadEntry, "a");
    assert!(stage.memory.get(&key, Origin::Registered).is_none());
    let entry = stage.memory.get(&key, Origin::Written).unwrap();
    assert_eq!(entry["spec"]["serviceAccount"], "web");
    let now = OffsetDateTime::now_utc();
    let entry = marks::connected(&entry, HERE, now).unwrap();
    stage.memory.replace(&key, Origin::Written, entry.clone()).unwrap();
    let health = marks::Health { why: None, at: now };
    let entry = marks::with_health(&entry, HERE, &health).unwrap();
    stage.memory.replace(&key, Origin::Written, entry).unwrap();
    let is_well = |object: &Object| {
        let entry = WorkloadEntry::of(&object.spec).unwrap();
        entry.status.conditions.iter().any(|one| one.kind == "Healthy" && one.status == "True")
    };
    let object = stage.take().unwrap();
    assert!(is_well(&object) && object.meta.annotations[WORKLOAD_CONTROLLER] == HERE);
    // It stays so when the file changes, and goes with it.
    stage.read(written("10.0.0.9"));
    assert!(stage.address().as_deref() == Some("10.0.0.9") && is_well(&stage.take().unwrap()));
    stage.delete(Kind::WorkloadEntry, "a");
    stage.read(written("10.0.0.9"));
    assert!(!is_well(&stage.take().unwrap()));
}
