//! The configuration in force: one task takes what the source says, and makes
//! of it the snapshot that all connections read.

mod builder;

use std::sync::Arc;
use std::time::Duration;

use config::{Kind, Problem, Store};
use pilot::Snapshot;
use pilot::cache::{Cache, Now};
use pilot::depend::Stamps;
use source::Update;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::info;

use crate::gateway_names::Names;
use crate::jwks::Keys;
use crate::kube::mesh::Mesh;
use crate::metrics::Metrics;
use crate::push::debounce::Debounce;
use crate::push::work;

pub use builder::Builder;

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
    /// What has changed when.
    pub stamps: Stamps,
    /// What proxies get of it.
    pub cache: Arc<Cache>,
    /// Serial of the last one that was to be sent whole to every proxy.
    pub forced: u64,
    /// When the first of its changes came.
    pub since: Instant,
}

impl World {
    /// It, for translation.
    #[must_use]
    pub fn now(&self) -> Now<'_> {
        Now { cache: &self.cache, snapshot: &self.snapshot, stamps: &self.stamps }
    }
}

/// What is wrong with objects that cannot be used, and so are in no world.
pub type Problems = Arc<[Problem]>;

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

/// Wishes of debug pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send everything to everybody.
    Push,
}

/// What objects name and others know.
#[derive(Debug)]
pub struct Outside {
    /// Keys of token issuers.
    pub keys: Keys,
    /// Addresses of gateways.
    pub names: Names,
}

/// Longest time that the first world waits for keys of token issuers, without
/// which every token would be refused for a moment, and for addresses of gateways.
const OUTSIDE: Duration = Duration::from_secs(2);

impl Outside {
    /// Waits until everybody has been asked once, but not for ever.
    async fn settle(&mut self) {
        tokio::join!(self.keys.settle(OUTSIDE), self.names.settle(OUTSIDE));
    }
}

/// Takes updates until the source ends; what comes in quick succession is
/// published once. The first update is published at once: proxies wait for it.
pub async fn run(
    mut builder: Builder,
    mut updates: mpsc::Receiver<Update>,
    mut mesh: watch::Receiver<Mesh>,
    mut wishes: mpsc::Receiver<Wish>,
    mut outside: Outside,
    mut debounce: Debounce,
    to: Publisher,
) {
    loop {
        tokio::select! {
            update = updates.recv() => {
                let Some(mut update) = update else { return };
                to.problems.send_replace(std::mem::take(&mut update.problems).into());
                let has_moved = !update.moved.is_empty();
                to.metrics.updates(&update);
                let is_endpoints = is_endpoints(&update);
                let may_name = may_name_gateways(&update);
                let changed = builder.take(update);
                if outside.keys.follow(builder.store()) {
                    builder.set_keys(outside.keys.sets());
                }
                if may_name || builder.serial() == 0 {
                    outside.names.follow(&builder.gateway_names());
                }
                if builder.serial() == 0 {
                    outside.settle().await;
                    builder.set_keys(outside.keys.sets());
                    builder.set_gateway_names(outside.names.addresses());
                    to.publish(&mut builder);
                } else if changed && is_endpoints {
                    debounce.endpoints_changed();
                } else if changed {
                    debounce.changed();
                } else {
                    if has_moved {
                        to.replace(&mut builder);
                    }
                    to.count(&to.world.borrow());
                }
            }
            () = outside.keys.changed() => {
                builder.set_keys(outside.keys.sets());
                to.metrics.triggered("unknown");
                debounce.changed();
            }
            () = outside.names.changed() => {
                builder.set_gateway_names(outside.names.addresses());
                to.metrics.triggered("networks");
                debounce.changed();
            }
            Ok(()) = mesh.changed() => {
                let Mesh { config, networks, variables } = mesh.borrow_and_update().clone();
                let settings = builder.settings();
                (settings.mesh, settings.networks, settings.variables) = (config, networks, variables);
                outside.names.follow(&builder.gateway_names());
                if builder.serial() > 0 {
                    debounce.changed();
                }
            }
            Some(wish) = wishes.recv() => match wish {
                // Before the first update there is nothing to push.
                Wish::Push if builder.serial() > 0 => {
                    builder.force();
                    to.metrics.triggered("debug");
                    to.publish(&mut builder);
                }
                Wish::Push => {}
            },
            waited = debounce.due() => {
                to.metrics.debounced(waited);
                to.publish(&mut builder);
            }
        }
    }
}

impl Publisher {
    fn publish(&self, builder: &mut Builder) {
        let begin = Instant::now();
        let Some(world) = work::blocking(|| builder.build()) else { return };
        self.metrics.built(&world, begin.elapsed());
        self.count(&world);
        info!(target: "ads", version = world.version, objects = world.store.len(), services = world.snapshot.services.len(), problems = world.snapshot.problems.len(), "push");
        for problem in &world.snapshot.problems {
            tracing::warn!(target: "config", "{problem}");
        }
        self.world.send_replace(world);
    }

    /// Publishes the same configuration with other positions, which concerns
    /// debug pages and messages, and no proxy: nobody is woken.
    fn replace(&self, builder: &mut Builder) {
        let Some(world) = work::blocking(|| builder.repositioned()) else { return };
        self.world.send_if_modified(|now| {
            *now = world;
            false
        });
    }

    fn count(&self, world: &World) {
        self.metrics.problems(self.problems.borrow().iter().chain(&world.snapshot.problems));
    }
}

/// Whether an update may bring or take host names of gateways.
fn may_name_gateways(update: &Update) -> bool {
    let keys = update.apply.iter().map(|object| &object.key).chain(&update.delete);
    keys.into_iter().any(|key| matches!(key.kind, Kind::Service | Kind::Node))
}

/// Whether an update is of endpoints and nothing else.
fn is_endpoints(update: &Update) -> bool {
    let keys = update.apply.iter().map(|object| &object.key).chain(&update.delete);
    keys.into_iter().all(|key| matches!(key.kind, Kind::EndpointSlice | Kind::Endpoints))
}

#[cfg(test)]
mod tests;
