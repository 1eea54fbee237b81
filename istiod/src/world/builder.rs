//! Makes worlds from updates, each from the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use config::{Key, Kind, Object, Store};
use mesh::MeshConfig;
use pilot::cache::Cache;
use pilot::depend::{Change, Stamps};
use pilot::snapshot::jwt;
use pilot::{GatewayNames, KeySets, Snapshot};
use source::Update;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::World;

/// Makes worlds from updates.
#[derive(Debug)]
pub struct Builder {
    settings: pilot::Settings,
    store: Store,
    cache: Arc<Cache>,
    last: Option<Arc<World>>,
    /// Objects that were touched since the last world, as they were in it.
    touched: BTreeMap<Key, Option<Arc<Object>>>,
    /// URIs whose key sets have changed since the last world.
    keys: BTreeSet<String>,
    /// Whether something has changed that everything depends on.
    all: bool,
    /// Whether everything is to be sent again.
    forced: bool,
    /// When something has changed first since the last world.
    since: Option<Instant>,
}

impl Builder {
    /// Starts without objects.
    #[must_use]
    pub fn new(mesh: MeshConfig, cluster_id: &str) -> Self {
        Self::with_settings(pilot::Settings::new(Arc::new(mesh), cluster_id))
    }

    /// Starts without objects, with those settings.
    #[must_use]
    pub fn with_settings(settings: pilot::Settings) -> Self {
        Self {
            settings,
            store: Store::default(),
            cache: Arc::default(),
            last: None,
            touched: BTreeMap::new(),
            keys: BTreeSet::new(),
            all: false,
            forced: false,
            since: None,
        }
    }

    /// The settings of the next world.
    pub fn settings(&mut self) -> &mut pilot::Settings {
        self.all = true;
        &mut self.settings
    }

    /// Gives the next world other key sets of token issuers, which concern those
    /// that take tokens of theirs.
    pub fn set_keys(&mut self, sets: Arc<KeySets>) {
        self.since.get_or_insert_with(Instant::now);
        let old = std::mem::replace(&mut self.settings.key_sets, sets);
        let new = &self.settings.key_sets;
        let uris = old.keys().chain(new.keys()).filter(|uri| old.get(*uri) != new.get(*uri));
        self.keys.extend(uris.cloned());
    }

    /// Host names of gateways that the objects and settings of the next world name.
    #[must_use]
    pub fn gateway_names(&self) -> BTreeSet<String> {
        pilot::snapshot::network::names(&self.store, &self.settings)
    }

    /// Gives the next world other addresses of gateways, which concern everything.
    pub fn set_gateway_names(&mut self, names: Arc<GatewayNames>) {
        if self.settings.gateway_names != names {
            self.since.get_or_insert_with(Instant::now);
            self.settings().gateway_names = names;
        }
    }

    /// The objects of the next world.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serial of the last world; 0 before the first.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.serial)
    }

    /// A world before all others, without objects.
    #[must_use]
    pub fn empty(&self) -> World {
        let store = Store::default();
        World {
            serial: 0,
            version: version(0),
            snapshot: Snapshot::build(&store, &self.settings),
            store,
            stamps: Stamps::new(0),
            cache: self.cache.clone(),
            forced: 0,
            since: Instant::now(),
        }
    }

    /// Lets the next world be sent whole to every proxy.
    pub fn force(&mut self) {
        self.forced = true;
    }

    /// Takes an update; `false` when it changes nothing that an object says.
    pub fn take(&mut self, update: Update) -> bool {
        self.since.get_or_insert_with(Instant::now);
        let mut changed = false;
        for key in update.delete {
            let old = self.store.object(&key).cloned();
            if self.store.delete(&key) {
                self.touched.entry(key).or_insert(old);
                changed = true;
            }
        }
        for object in update.apply.into_iter().chain(update.moved) {
            let key = object.key.clone();
            let old = self.store.object(&key).cloned();
            if self.store.apply(object) {
                self.touched.entry(key).or_insert(old);
                changed = true;
            }
        }
        changed
    }

    /// The world as it is now; `None` when it is as it was.
    pub fn build(&mut self) -> Option<Arc<World>> {
        let changes = self.changes();
        let serial = self.serial() + 1;
        let world = match &self.last {
            Some(_) if changes.is_empty() && !self.all && !self.forced => return None,
            Some(last) if !self.all => {
                let kinds: BTreeSet<Kind> = changes.iter().map(|change| change.key.kind).collect();
                let keys = self.settings.key_sets.clone();
                let snapshot = last.snapshot.next_with_keys(&self.store, &kinds, keys);
                let stamps = last.stamps.advance(serial, &last.snapshot, &snapshot, &changes);
                self.world(serial, snapshot, stamps)
            }
            last => {
                let snapshot = Snapshot::build(&self.store, &self.settings);
                let stamps =
                    last.as_ref().map_or_else(|| Stamps::new(serial), |last| last.stamps.all_changed(serial));
                self.world(serial, snapshot, stamps)
            }
        };
        self.all = false;
        self.forced = false;
        self.since = None;
        self.cache.prune(serial, &world.snapshot);
        let world = Arc::new(world);
        self.last = Some(world.clone());
        Some(world)
    }

    /// The last world, with its objects where they stand now. `None` while
    /// something else has changed: what is pending must be told, and the next
    /// world brings the positions, too.
    pub fn repositioned(&mut self) -> Option<Arc<World>> {
        if self.all || self.forced || !self.touched.is_empty() || !self.keys.is_empty() {
            return None;
        }
        let last = self.last.as_ref()?;
        let world = Arc::new(World {
            serial: last.serial,
            version: last.version.clone(),
            store: self.store.clone(),
            snapshot: Snapshot::build(&self.store, &self.settings),
            stamps: last.stamps.clone(),
            cache: self.cache.clone(),
            forced: last.forced,
            since: last.since,
        });
        self.last = Some(world.clone());
        Some(world)
    }

    fn world(&self, serial: u64, snapshot: Snapshot, stamps: Stamps) -> World {
        let before = self.last.as_ref().map_or(0, |last| last.forced);
        World {
            serial,
            version: version(serial),
            store: self.store.clone(),
            snapshot,
            stamps,
            cache: self.cache.clone(),
            forced: if self.forced { serial } else { before },
            since: self.since.unwrap_or_else(Instant::now),
        }
    }

    /// What is different from the last world. Policies whose keys have changed
    /// are as if they had changed themselves.
    fn changes(&mut self) -> Vec<Change> {
        let keys = std::mem::take(&mut self.keys);
        let users = jwt::users(&self.store, &keys.iter().map(String::as_str).collect());
        let users = users.into_iter().map(|policy| Change {
            key: policy.key.clone(),
            old: Some(policy.clone()),
            new: Some(policy.clone()),
        });
        let touched = std::mem::take(&mut self.touched).into_iter();
        let changes = touched.map(|(key, old)| Change { new: self.store.object(&key).cloned(), key, old });
        changes.filter(|change| !is_same(change.old.as_deref(), change.new.as_deref())).chain(users).collect()
    }
}

fn is_same(old: Option<&Object>, new: Option<&Object>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.meta == new.meta && old.spec == new.spec,
        (None, None) => true,
        _ => false,
    }
}

fn version(serial: u64) -> String {
    let now = OffsetDateTime::from(SystemTime::now());
    let stamp = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    format!("{stamp}/{serial}")
}
