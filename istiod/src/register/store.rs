//! Where entries are kept: by the API server, or in istiod's memory beside the
//! objects of a directory.

use config::Key;
use serde_json::Value;

use super::cluster::Cluster;
use super::memory::Memory;

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Somebody else was faster.
    #[error("it is changed by others all the time")]
    Changed,
    /// Something is not there.
    #[error("{0}")]
    Missing(String),
    /// Nobody answers; it may work later.
    #[error("{0}")]
    Away(String),
    /// The proxy may not have it.
    #[error("{0}")]
    Denied(String),
    /// It will not work.
    #[error("{0}")]
    Refused(String),
}

/// Whose entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is made for a workload that registers itself.
    Registered,
    /// Somebody wrote it.
    Written,
}

/// Where entries are kept.
#[derive(Debug)]
pub(super) enum Store {
    /// With the API server.
    Cluster(Cluster),
    /// Here.
    Memory(Memory),
}

impl Store {
    /// The entry as it is now.
    pub(super) async fn get(&self, key: &Key, origin: Origin) -> Result<Option<Value>, Failure> {
        match self {
            Self::Cluster(cluster) => cluster.get(key).await,
            Self::Memory(memory) => Ok(memory.get(key, origin)),
        }
    }

    /// Makes an entry for a workload of that group.
    pub(super) async fn create(&self, key: &Key, group: &str, entry: Value) -> Result<(), Failure> {
        match self {
            Self::Cluster(cluster) => cluster.create(key, group, entry).await,
            Self::Memory(memory) => memory.create(key, group, entry),
        }
    }

    /// Writes an entry, if it is as it was when it was read.
    pub(super) async fn replace(&self, key: &Key, origin: Origin, entry: Value) -> Result<(), Failure> {
        match self {
            Self::Cluster(cluster) => cluster.replace(key, entry).await,
            Self::Memory(memory) => memory.replace(key, origin, entry),
        }
    }

    /// Writes the status of an entry, if it is as it was when it was read.
    pub(super) async fn replace_status(
        &self,
        key: &Key,
        origin: Origin,
        entry: Value,
    ) -> Result<(), Failure> {
        match self {
            Self::Cluster(cluster) => cluster.replace_status(key, entry).await,
            Self::Memory(memory) => memory.replace(key, origin, entry),
        }
    }

    /// Deletes an entry, if it is as it was when it was read; one that is gone is fine.
    pub(super) async fn delete(&self, key: &Key, entry: &Value) -> Result<(), Failure> {
        match self {
            Self::Cluster(cluster) => cluster.delete(key, entry).await,
            Self::Memory(memory) => memory.delete(key, entry),
        }
    }

    /// Waits until it may answer again, for ever where it always does.
    pub(super) async fn returned(&self) {
        match self {
            Self::Cluster(cluster) => cluster.returned().await,
            Self::Memory(_) => std::future::pending().await,
        }
    }
}

/// The version of an entry that was read.
pub(super) fn version(entry: &Value) -> Option<&str> {
    entry.get("metadata")?.get("resourceVersion")?.as_str()
}
