//! Workloads on plain hosts that register themselves: as long as the proxy of one is
//! connected, there is a WorkloadEntry for it, made from its WorkloadGroup; and what
//! its agent says of its health stands in the entry's status.
//!
//! Of each such workload one task writes what there is to write (`workload` says
//! what that is); only the first entry is written before the proxy gets anything, so
//! that who may not have it is refused.

mod cluster;
mod marks;
mod memory;
mod metrics;
mod store;
mod workload;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::validate::is_dns_subdomain;
use config::{Key, Kind};
use futures_util::StreamExt as _;
use pilot::{Proxy, register};
use proto::istio::networking::v1alpha3::WorkloadGroup;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use source::Update;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tonic::Status;
use tracing::{debug, warn};

use self::marks::{Health, Marks};
use self::store::{Failure, Origin, Store};
use self::workload::{Connected, Step, Workload};
use crate::auth::Caller;
use crate::kube::Connection;
use crate::world::World;

pub use self::metrics::Metrics;

/// Times that something is written when others write the same.
const ATTEMPTS: usize = 5;
/// Waits after failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Grace periods from one look for entries that nobody looks after to the next, as Istio.
const ROUND: u32 = 10;
/// Entries that are written at the same time at the end.
const AT_ONCE: usize = 8;
/// Characters that are kept of why a workload is not well.
const LONGEST_REASON: usize = 1024;
/// Time for that.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is done for workloads on plain hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether entries are made for workloads of a group.
    pub registers: bool,
    /// Whether their health is taken.
    pub takes_health: bool,
    /// Whether the caller must be of the entry's namespace and service account.
    pub checks_identity: bool,
    /// How long a workload may be away before its entry goes.
    pub grace: Duration,
}

/// Registers workloads; clones are the same.
#[derive(Clone)]
pub struct Registrar(Arc<Inner>);

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// What a registrar is made of.
#[derive(Debug)]
pub struct Parts {
    /// What is done.
    pub settings: Settings,
    /// Name of this istiod, which no other has.
    pub instance: String,
    /// Time after which connections end, if they do.
    pub max_connection_age: Option<Duration>,
    /// The configuration in force.
    pub world: watch::Receiver<Arc<World>>,
    /// Whether this istiod is the one of several that cleans up; `None`: it is.
    pub leads: Option<watch::Receiver<bool>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Workloads by their entry and the group that it is made of.
type Known = BTreeMap<(Key, Option<String>), Arc<Workload>>;

struct Inner {
    settings: Settings,
    instance: String,
    /// Longest time that a proxy can have been connected.
    age: Option<Duration>,
    world: watch::Receiver<Arc<World>>,
    store: Store,
    known: Mutex<Known>,
    serial: AtomicU64,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

/// Where entries are kept.
#[derive(Debug)]
pub struct Kept(Store);

impl Kept {
    /// By the API server.
    #[must_use]
    pub fn in_cluster(connection: &Connection) -> Self {
        Self(Store::Cluster(cluster::Cluster::new(connection)))
    }

    /// In memory, beside the objects of a directory; with what both say together.
    #[must_use]
    pub fn beside(tasks: &Tasks, files: mpsc::Receiver<Update>) -> (Self, mpsc::Receiver<Update>) {
        let (memory, updates) = memory::Memory::beside(tasks, files);
        (Self(Store::Memory(memory)), updates)
    }
}

/// A connected workload with an entry; dropped when the connection ends.
pub struct Registration {
    inner: Arc<Inner>,
    workload: Arc<Workload>,
    id: u64,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("entry", &self.workload.key).finish_non_exhaustive()
    }
}

impl Registration {
    /// The proxy says how its workload is: why it is not well, if it is not.
    pub fn tell(&self, why: Option<&str>) {
        if self.inner.settings.takes_health {
            let at = OffsetDateTime::now_utc();
            let why = why.map(|why| why.chars().take(LONGEST_REASON).collect());
            self.workload.told(Health { why, at });
        }
    }
}

/// The agent of a connection says how its workload is.
pub fn tell(to: Option<&Registration>, connection: &str, why: Option<&str>) {
    match to {
        Some(registration) => registration.tell(why),
        None => debug!(
            target: "wle", connection,
            "health of a workload without a WorkloadEntry (AUTO_REGISTER_GROUP, or WORKLOAD_ENTRY) has no effect"
        ),
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.workload.leave(self.id, OffsetDateTime::now_utc());
    }
}

/// A connection that is not let in yet; dropped when it is, or will not be.
struct Coming<'a> {
    inner: &'a Inner,
    workload: &'a Arc<Workload>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.inner.forget(self.workload);
    }
}

impl Registrar {
    /// Starts to register workloads.
    #[must_use]
    pub fn start(tasks: &Tasks, kept: Kept, parts: Parts) -> Self {
        let Parts { settings, instance, max_connection_age, world, leads, metrics } = parts;
        let inner = Arc::new(Inner {
            settings,
            instance,
            // As with Istio: connections end a little later than they should.
            age: max_connection_age.map(|age| age.saturating_add(age / 2)),
            world,
            store: kept.0,
            known: Mutex::default(),
            serial: AtomicU64::new(0),
            metrics,
            tasks: tasks.clone(),
        });
        if inner.settings.registers {
            tasks.spawn("groups of workloads", inner.clone().look());
        }
        if inner.settings.registers || inner.settings.takes_health {
            tasks.spawn("workloads that are gone", inner.clone().sweep(leads));
        }
        Self(inner)
    }

    /// A proxy has connected: its workload is registered, if it wants to be. Of labels
    /// that the proxy does not have, those of its entry count.
    ///
    /// # Errors
    /// When it may not have its entry, or there is nothing to make one of.
    pub async fn connect(
        &self,
        mut proxy: Proxy,
        caller: Option<&Caller>,
    ) -> Result<(Arc<Proxy>, Option<Registration>), Status> {
        let inner = &self.0;
        let node = proxy.id.to_string();
        let refuse = |failure: &Failure| {
            warn!(target: "wle", node, "stream refused: {failure}");
            status(failure)
        };
        let Some((name, group)) = inner.claim(&proxy).map_err(|failure| refuse(&failure))? else {
            return Ok((Arc::new(proxy), None));
        };
        for (key, value) in inner.labels(&proxy, &name, group.as_deref()) {
            proxy.labels.entry(key).or_insert(value);
        }
        let proxy = Arc::new(proxy);
        let connected =
            Connected { proxy: proxy.clone(), caller: caller.cloned(), at: OffsetDateTime::now_utc() };
        let key = Key {
            kind: Kind::WorkloadEntry,
            namespace: proxy.namespace.as_str().into(),
            name: name.as_str().into(),
        };
        let workload = inner.workload(&key, group);
        // The stream may end while this waits for its turn or for the API server.
        let _coming = Coming { inner, workload: &workload };
        let turn = workload.turn.lock().await;
        let written = match inner.register(&workload, &connected).await {
            // Its configuration must not wait for the API server: whether it may
            // register is known without.
            Err(failure @ (Failure::Away(_) | Failure::Changed)) => {
                warn!(target: "wle", "{key}: {failure}: it is written later");
                inner.may_register(&workload, &connected).map(|()| false)
            }
            other => other.map(|()| true),
        };
        match written {
            Ok(is_written) => {
                let id = inner.serial.fetch_add(1, Ordering::Relaxed);
                inner.enter(&workload, id, connected, is_written);
                drop(turn);
                Ok((proxy, Some(Registration { inner: inner.clone(), workload: workload.clone(), id })))
            }
            Err(failure) => {
                drop(turn);
                inner.failed(&workload, &failure);
                Err(refuse(&failure))
            }
        }
    }

    /// Says of all workloads that they leave, before this istiod ends: another one
    /// knows then that they do not come back if they do not.
    pub async fn farewell(&self) {
        if matches!(self.0.store, Store::Memory(_)) {
            return;
        }
        let all: Vec<Arc<Workload>> = self.0.known().values().cloned().collect();
        let now = OffsetDateTime::now_utc();
        let leaving = all.into_iter().map(|workload| async move {
            let _turn = workload.turn.lock().await;
            if let Some((since, at)) = workload.leaving(now) {
                // Without it, another istiod takes it for connected.
                drop(self.0.leave(&workload, since, at).await);
            }
        });
        let leaving = futures_util::stream::iter(leaving).buffer_unordered(AT_ONCE).collect::<Vec<()>>();
        timeout(FAREWELL, leaving).await.ok();
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole after each step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry that a proxy's workload has, and the group that it is made of.
    fn claim(&self, proxy: &Proxy) -> Result<Option<(String, Option<String>)>, Failure> {
        if self.settings.registers
            && let Some(group) = register::group(proxy)
        {
            let name = register::name(group, proxy);
            if !is_dns_subdomain(&name) {
                return Err(Failure::Refused(format!(
                    "{name:?} cannot be the name of a WorkloadEntry (lower case letters, digits, - and .): \
                     AUTO_REGISTER_GROUP, the address and NETWORK make it"
                )));
            }
            return Ok(Some((name, Some(group.to_owned()))));
        }
        let Some(name) = register::entry(proxy).filter(|_| self.settings.takes_health) else {
            return Ok(None);
        };
        let world = self.world.borrow();
        let found = world.store.get::<config::kube::WorkloadEntry>(&proxy.namespace, name);
        let (object, _) = found.ok_or_else(|| {
            Failure::Missing(format!(
                "the proxy says that it is of WorkloadEntry {}/{name} (WORKLOAD_ENTRY), which is not there",
                proxy.namespace
            ))
        })?;
        Ok(marks::takes_health(&object.meta).then(|| (name.to_owned(), None)))
    }

    /// The labels that a workload's entry has, or will have.
    fn labels(&self, proxy: &Proxy, name: &str, group: Option<&str>) -> BTreeMap<String, String> {
        if let Some(group) = group {
            return self.made(group, proxy).map(|made| made.spec.labels).unwrap_or_default();
        }
        let world = self.world.borrow();
        let found = world.store.get::<config::kube::WorkloadEntry>(&proxy.namespace, name);
        let labels = found.map(|(object, entry)| {
            let mut labels = entry.labels.clone();
            labels.extend(object.meta.labels.clone());
            labels
        });
        labels.unwrap_or_default()
    }

    fn workload(&self, key: &Key, group: Option<String>) -> Arc<Workload> {
        let mut known = self.known();
        let workload = known
            .entry((key.clone(), group.clone()))
            .or_insert_with(|| Arc::new(Workload::new(key.clone(), group)));
        workload.clone()
    }

    /// Lets a connection in. A task looks after the workload from its first one on.
    fn enter(self: &Arc<Self>, workload: &Arc<Workload>, id: u64, connected: Connected, is_written: bool) {
        let mut known = self.known();
        let is_new = workload.is_idle();
        workload.enter(id, connected, is_written);
        known.insert(workload.id(), workload.clone());
        drop(known);
        if is_new {
            self.tasks.spawn("registered workload", self.clone().keep(workload.clone()));
        }
    }

    /// Counts a failure, as Istio does: who is refused is none.
    fn failed(&self, workload: &Workload, failure: &Failure) {
        if workload.group.is_some() && !matches!(failure, Failure::Denied(_)) {
            self.metrics.errors.inc();
        }
    }

    /// Forgets a workload of which nothing is to be kept; whether it is forgotten.
    fn forget(&self, workload: &Arc<Workload>) -> bool {
        let mut known = self.known();
        let is_idle = workload.is_idle();
        let id = workload.id();
        if is_idle && known.get(&id).is_some_and(|known| Arc::ptr_eq(known, workload)) {
            known.remove(&id);
        }
        is_idle
    }

    /// Does what there is to do for a workload, until nothing is.
    async fn keep(self: Arc<Self>, workload: Arc<Workload>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let turn = workload.turn.lock().await;
            let step = workload.next();
            let done = match &step {
                Step::Wait => {
                    drop(turn);
                    workload.news.notified().await;
                    continue;
                }
                Step::Until(until) => {
                    drop(turn);
                    tokio::select! {
                        () = workload.news.notified() => {}
                        () = sleep_until(*until) => {}
                    }
                    continue;
                }
                Step::End => {
                    drop(turn);
                    if self.forget(&workload) {
                        return;
                    }
                    continue;
                }
                Step::Connect(connected) => self.register(&workload, connected).await.map(|()| None),
                Step::Tell(health) => self.tell(&workload, health).await.map(|()| None),
                Step::Leave(since, at) => self.leave(&workload, *since, *at).await.map(|is_left| {
                    // Another istiod has it, unless it was written just now.
                    is_left.then(|| Instant::now() + self.settings.grace)
                }),
                Step::Clean => self.clean(&workload.key, workload.origin(), false).await.map(|()| None),
            };
            let failure = match done {
                Ok(awaited) => {
                    workload.done(&step, awaited);
                    backoff.reset();
                    continue;
                }
                Err(failure) => failure,
            };
            self.failed(&workload, &failure);
            drop(turn);
            if !matches!(failure, Failure::Away(_) | Failure::Changed) {
                warn!(target: "wle", "{}: {failure}", workload.key);
                workload.done(&step, None);
                continue;
            }
            debug!(target: "wle", "{}: {failure}: trying again", workload.key);
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = self.store.returned() => backoff.reset(),
            }
        }
    }

    /// Makes entries again whose group was away, or that somebody has deleted.
    async fn look(self: Arc<Self>) {
        let mut changes = self.world.clone();
        while changes.changed().await.is_ok() {
            let world = changes.borrow_and_update().clone();
            let all: Vec<Arc<Workload>> = self.known().values().cloned().collect();
            for workload in all {
                let Some(group) = &workload.group else { continue };
                let has_entry = world.store.object(&workload.key).is_some();
                let has_group = world.store.get::<WorkloadGroup>(&workload.key.namespace, group).is_some();
                workload.look(has_entry, has_group);
            }
        }
    }

    /// Cleans up from time to time what nobody looks after: its istiod has ended.
    async fn sweep(self: Arc<Self>, leads: Option<watch::Receiver<bool>>) {
        let period = (self.settings.grace * ROUND).max(Duration::from_secs(1));
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if leads.as_ref().is_some_and(|leads| !*leads.borrow()) {
                continue;
            }
            let world = self.world.borrow().clone();
            let now = OffsetDateTime::now_utc();
            for (object, entry) in world.store.all::<config::kube::WorkloadEntry>() {
                let marks = Marks::of_object(&object.meta, entry);
                if !marks.is_due(now, self.settings.grace, self.age) {
                    continue;
                }
                let origin = if marks.is_registered() { Origin::Registered } else { Origin::Written };
                if let Err(failure) = self.clean(&object.key, origin, true).await {
                    self.metrics.errors.inc();
                    warn!(target: "wle", "{}: {failure}", object.key);
                }
            }
        }
    }
}

fn status(failure: &Failure) -> Status {
    let text = failure.to_string();
    match failure {
        Failure::Missing(_) | Failure::Refused(_) => Status::failed_precondition(text),
        Failure::Denied(_) => Status::permission_denied(text),
        Failure::Away(_) | Failure::Changed => Status::unavailable(text),
    }
}
