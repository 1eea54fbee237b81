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
    /// What is wrong with objects.
    pub problems: Vec<Problem>,
}

/// Makes worlds from updates.
#[derive(Debug)]
pub struct Builder {
    mesh: Arc<MeshConfig>,
    cluster_id: String,
    store: Store,
    problems: Vec<Problem>,
    serial: u64,
}

impl Builder {
    /// Starts without objects.
    #[must_use]
    pub fn new(mesh: MeshConfig, cluster_id: &str) -> Self {
        Self {
            mesh: Arc::new(mesh),
            cluster_id: cluster_id.into(),
            store: Store::default(),
            problems: Vec::new(),
            serial: 0,
        }
    }

    /// The world as it is now.
    #[must_use]
    pub fn build(&self) -> World {
        let snapshot = Snapshot::build(&self.store, self.mesh.clone(), &self.cluster_id);
        let mut problems = self.problems.clone();
        problems.extend(snapshot.problems.iter().cloned());
        let now = OffsetDateTime::from(SystemTime::now());
        let stamp = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
        World {
            serial: self.serial,
            version: format!("{stamp}/{}", self.serial),
            store: self.store.clone(),
            snapshot,
            problems,
        }
    }

    /// Takes an update; `false` when it changes no object.
    fn take(&mut self, update: Update) -> bool {
        let mut changed = false;
        for key in &update.delete {
            changed |= self.store.delete(key);
        }
        for object in update.apply {
            changed |= self.store.apply(object);
        }
        self.problems = update.problems;
        changed
    }
}

/// Takes updates until the source ends; what comes in quick succession is
/// published once. The first update is published at once: proxies wait for it.
pub async fn run(
    mut builder: Builder,
    mut updates: mpsc::Receiver<Update>,
    mut debounce: Debounce,
    publish: watch::Sender<Arc<World>>,
    metrics: Arc<Metrics>,
) {
    loop {
        tokio::select! {
            update = updates.recv() => {
                let Some(update) = update else { return };
                let changed = builder.take(update);
                if builder.serial == 0 {
                    self::publish(&mut builder, &publish, &metrics);
                } else if changed {
                    debounce.changed();
                } else {
                    // Only what is told about objects is different: nothing to push.
                    metrics.rejected_configs.set(errors(&builder.problems));
                }
            }
            _ = debounce.due() => self::publish(&mut builder, &publish, &metrics),
        }
    }
}

fn publish(builder: &mut Builder, to: &watch::Sender<Arc<World>>, metrics: &Metrics) {
    builder.serial += 1;
    let world = builder.build();
    metrics.rejected_configs.set(errors(&world.problems));
    info!(target: "ads", version = world.version, objects = world.store.len(), services = world.snapshot.services.len(), problems = world.problems.len(), "push");
    for problem in &world.snapshot.problems {
        tracing::warn!(target: "config", "{problem}");
    }
    to.send_replace(Arc::new(world));
}

fn errors(problems: &[Problem]) -> i64 {
    let count = problems.iter().filter(|problem| problem.severity == config::Severity::Error).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}
