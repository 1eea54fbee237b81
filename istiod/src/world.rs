//! The configuration in force: one task takes what the source says, and makes
//! of it the snapshot that all connections read.

use std::sync::Arc;
use std::time::SystemTime;

use config::{Problem, Store};
use mesh::MeshConfig;
use pilot::Snapshot;
use source::Update;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::metrics::Metrics;
use crate::push::debounce::Debounce;

/// A configuration with everything derived from it.
#[derive(Debug)]
pub struct World {
    /// Counts configurations; 0 before the first.
    pub serial: u64,
    /// `TIME/SERIAL`, which proxies show as their version.
    pub version: String,
    /// The objects.
    pub store: Store,
    /// Their indexes.
    pub snapshot: Snapshot,
}

/// What is wrong with objects that cannot be used, and so are in no world.
pub type Problems = Arc<[Problem]>;

/// Makes worlds from updates.
#[derive(Debug)]
pub struct Builder {
    settings: pilot::Settings,
    store: Store,
    serial: u64,
}

impl Builder {
    /// Starts without objects.
    #[must_use]
    pub fn new(mesh: MeshConfig, cluster_id: &str) -> Self {
        let settings = pilot::Settings::new(Arc::new(mesh), cluster_id);
        Self { settings, store: Store::default(), serial: 0 }
    }

    /// The world as it is now.
    #[must_use]
    pub fn build(&self) -> World {
        let snapshot = Snapshot::build(&self.store, &self.settings);
        let now = OffsetDateTime::from(SystemTime::now());
        let stamp = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
        World {
            serial: self.serial,
            version: format!("{stamp}/{}", self.serial),
            store: self.store.clone(),
            snapshot,
        }
    }

    /// Takes an update; `false` when it changes nothing that an object says.
    fn take(&mut self, update: Update) -> bool {
        let mut changed = false;
        for key in &update.delete {
            changed |= self.store.delete(key);
        }
        for object in update.apply.into_iter().chain(update.moved) {
            changed |= self.store.apply(object);
        }
        changed
    }
}

/// Where worlds and problems are published.
#[derive(Debug)]
pub struct Publisher {
    /// Each new world wakes every connection.
    pub world: watch::Sender<Arc<World>>,
    /// Problems change without any proxy being concerned.
    pub problems: watch::Sender<Problems>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Takes updates until the source ends; what comes in quick succession is
/// published once. The first update is published at once: proxies wait for it.
pub async fn run(
    mut builder: Builder,
    mut updates: mpsc::Receiver<Update>,
    mut debounce: Debounce,
    to: Publisher,
) {
    loop {
        tokio::select! {
            update = updates.recv() => {
                let Some(mut update) = update else { return };
                to.problems.send_replace(std::mem::take(&mut update.problems).into());
                let has_moved = !update.moved.is_empty();
                let changed = builder.take(update);
                if builder.serial == 0 {
                    to.publish(&mut builder);
                } else if changed {
                    debounce.changed();
                } else {
                    if has_moved {
                        to.replace(&builder);
                    }
                    to.count(&to.world.borrow());
                }
            }
            _ = debounce.due() => to.publish(&mut builder),
        }
    }
}

impl Publisher {
    fn publish(&self, builder: &mut Builder) {
        builder.serial += 1;
        let world = builder.build();
        self.count(&world);
        info!(target: "ads", version = world.version, objects = world.store.len(), services = world.snapshot.services.len(), problems = world.snapshot.problems.len(), "push");
        for problem in &world.snapshot.problems {
            tracing::warn!(target: "config", "{problem}");
        }
        self.world.send_replace(Arc::new(world));
    }

    /// Publishes the same configuration with other positions, which concerns
    /// debug pages and messages, and no proxy: nobody is woken.
    fn replace(&self, builder: &Builder) {
        let world = World { version: self.world.borrow().version.clone(), ..builder.build() };
        self.world.send_if_modified(|now| {
            *now = Arc::new(world);
            false
        });
    }

    fn count(&self, world: &World) {
        let count = errors(&self.problems.borrow()) + errors(&world.snapshot.problems);
        self.metrics.rejected_configs.set(count);
    }
}

fn errors(problems: &[Problem]) -> i64 {
    let count = problems.iter().filter(|problem| problem.severity == config::Severity::Error).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;

    #[test]
    fn objects_that_moved_wake_nobody() {
        let (world, mut seen) = watch::channel(Arc::new(Builder::new(MeshConfig::default(), "c").build()));
        let (problems, _) = watch::channel(Problems::default());
        let to = Publisher { world, problems, metrics: Arc::default() };
        let mut builder = Builder::new(MeshConfig::default(), "c");
        let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";
        let objects = |text: &str| yaml::read("a.yaml", text).objects.into_iter().map(Arc::new).collect();
        assert!(builder.take(Update { apply: objects(text), ..Update::default() }));
        to.publish(&mut builder);
        let version = seen.borrow_and_update().version.clone();
        let moved = Update { moved: objects(&format!("# comment\n{text}")), ..Update::default() };
        assert!(!builder.take(moved));
        to.replace(&builder);
        assert!(!seen.has_changed().unwrap());
        let position = seen.borrow().store.objects().next().unwrap().position.to_string();
        assert_eq!(position, "a.yaml:2");
        assert_eq!(seen.borrow().version, version);
    }
}
