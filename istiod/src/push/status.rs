//! What every connected proxy was sent and has accepted; read by the debug
//! pages, written by the connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use names::TypeUrl;
use pilot::Proxy;
use pilot::finding::Finding;
use tokio::sync::Notify;
use xds::session::Wanted;
use xds::{Session, TypeStatus};

/// The protocol state of a connection: it changes it, pages look at it.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Session>>);

impl Shared {
    /// Of a new stream.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// The state, for as long as nothing is waited for.
    pub fn lock(&self) -> MutexGuard<'_, Session> {
        // A connection whose task has panicked is gone; its state is only shown.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connected proxy.
#[derive(Clone, Debug)]
pub struct Row {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// When it connected.
    pub connected_at: SystemTime,
    /// Its address.
    pub peer: Option<SocketAddr>,
    /// Its subscriptions and what it has.
    pub session: Shared,
    /// Told when somebody wants the connection to end.
    pub end: Arc<Notify>,
    /// What was found about its own workload.
    pub findings: Findings,
    /// Serial of the newest configuration of which it was sent all.
    pub reached: Reached,
}

/// How far a connection has come: it writes it, pages look at it.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<AtomicU64>);

impl Reached {
    /// All of a configuration was sent.
    pub fn set(&self, serial: u64) {
        self.0.store(serial, Ordering::Release);
    }
}

/// Findings of a connection: it writes them, pages look at them.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<Vec<Finding>>>);

impl Findings {
    /// What was found last.
    #[must_use]
    pub fn get(&self) -> Vec<Finding> {
        self.lock().clone()
    }

    /// These are found now; says whether that is something else.
    pub fn set<'a>(&self, now: impl Iterator<Item = &'a Finding>) -> bool {
        let mut known = self.lock();
        let now: Vec<&Finding> = now.collect();
        let is_other = !known.iter().eq(now.iter().copied());
        if is_other {
            *known = now.into_iter().cloned().collect();
        }
        is_other
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Finding>> {
        // Plain data, whole whatever a panic left behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    /// `POD.NAMESPACE`, as commands name a proxy.
    #[must_use]
    pub fn name(&self) -> String {
        self.proxy.name()
    }

    /// Serial of the newest configuration of which it was sent all.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.reached.0.load(Ordering::Acquire)
    }

    /// Its subscriptions with what came of them.
    #[must_use]
    pub fn types(&self) -> BTreeMap<TypeUrl, TypeStatus> {
        let session = self.session.lock();
        session.status().map(|(type_url, status)| (type_url.clone(), status.clone())).collect()
    }

    /// What it wants of each type.
    #[must_use]
    pub fn wanted(&self) -> BTreeMap<TypeUrl, Wanted> {
        let session = self.session.lock();
        let types: Vec<TypeUrl> = session.status().map(|(type_url, _)| type_url.clone()).collect();
        let wanted = types.into_iter().filter_map(|type_url| Some((session.wanted(&type_url)?, type_url)));
        wanted.map(|(wanted, type_url)| (type_url, wanted)).collect()
    }
}

/// All connected proxies by connection id (`NODEID-N`).
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    /// Counts whatever may change what is found about proxies.
    version: Arc<AtomicU64>,
}

/// A connection's own row; leaving the scope removes it.
#[derive(Debug)]
pub struct Entry {
    table: Table,
    id: String,
}

impl Table {
    fn rows<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Row>) -> T) -> T {
        // The rows are plain data: one that a panic left behind is still whole.
        with(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whatever is found about proxies is as it was for as long as this is.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Something may be found now that was not before.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds a connection.
    #[must_use]
    pub fn enter(&self, id: String, row: Row) -> Entry {
        self.rows(|rows| rows.insert(id.clone(), row));
        self.touch();
        Entry { table: self.clone(), id }
    }

    /// All rows as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Row)> {
        self.rows(|rows| rows.iter().map(|(id, row)| (id.clone(), row.clone())).collect())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.rows(|rows| rows.remove(&self.id));
        self.table.touch();
    }
}
