//! What every connected proxy was sent and has accepted; read by the debug
//! pages, written by the connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use names::{NodeId, TypeUrl};
use xds::{Session, TypeStatus};

/// One connected proxy.
#[derive(Clone, Debug)]
pub struct Row {
    /// The proxy.
    pub node: NodeId,
    /// Cluster it says it is in.
    pub cluster_id: String,
    /// Version it says it is of.
    pub istio_version: String,
    /// When it connected.
    pub connected_at: SystemTime,
    /// Its subscriptions.
    pub types: BTreeMap<TypeUrl, TypeStatus>,
}

/// All connected proxies by connection id (`NODEID-N`).
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Mutex<BTreeMap<String, Row>>>);

/// A connection's own row; leaving the scope removes it.
#[derive(Debug)]
pub struct Entry {
    table: Table,
    id: String,
}

impl Table {
    fn rows<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Row>) -> T) -> T {
        // The rows are plain data: one that a panic left behind is still whole.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a connection.
    #[must_use]
    pub fn enter(&self, id: String, row: Row) -> Entry {
        self.rows(|rows| rows.insert(id.clone(), row));
        Entry { table: self.clone(), id }
    }

    /// All rows as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Row)> {
        self.rows(|rows| rows.iter().map(|(id, row)| (id.clone(), row.clone())).collect())
    }
}

impl Entry {
    /// Shows the state of a session.
    pub fn update(&self, session: &Session) {
        let types = session.status().map(|(type_url, status)| (type_url.clone(), status.clone())).collect();
        self.table.rows(|rows| {
            if let Some(row) = rows.get_mut(&self.id) {
                row.types = types;
            }
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.rows(|rows| rows.remove(&self.id));
    }
}
