//! A directory of YAML files as the source of objects.
//!
//! Files are read in order of their names; of an object that two files define,
//! the first counts. A file with an error keeps what it last said without one,
//! so that a half-written file takes nothing away.

mod read;

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::Update;
use read::Directory;

/// The directory cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("watch the configuration directory {path}: {source}", path = path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// Updates that wait for their reader; later ones are gathered meanwhile.
const QUEUE: usize = 1;
/// A file is often written in several steps, each of which is told.
const SETTLE: Duration = Duration::from_millis(5);
/// How often the directory is looked through without having been told to:
/// some file systems do not tell.
const RESCAN: Duration = Duration::from_secs(30);

/// Follows a directory. The first update comes at once and is whole.
///
/// # Errors
/// When the directory cannot be watched.
pub fn watch(tasks: &Tasks, root: &Path) -> Result<mpsc::Receiver<Update>, Error> {
    let failed = |source| Error { path: root.into(), source };
    // Watching begins before reading: what changes in between is read again.
    let mut changes = runtime::watch::tree(tasks, root).map_err(failed)?;
    let mut directory = Directory::new(root);
    let (tx, rx) = mpsc::channel(QUEUE);
    tasks.spawn("config directory", async move {
        let mut is_first = true;
        loop {
            let update = directory.read();
            log(&update, is_first);
            if (is_first || update.has_news()) && tx.send(update.into_update()).await.is_err() {
                return;
            }
            is_first = false;
            if let Ok(None) = tokio::time::timeout(RESCAN, changes.recv()).await {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    });
    Ok(rx)
}

fn log(reading: &read::Reading, is_first: bool) {
    for problem in &reading.new_problems {
        match problem.severity {
            config::Severity::Error => {
                warn!(target: "config", "{problem} (what the file said before stays in force)");
            }
            config::Severity::Warning => warn!(target: "config", "{problem}"),
        }
    }
    if is_first || reading.has_news() {
        info!(target: "config", applied = reading.apply.len(), deleted = reading.delete.len(), problems = reading.problems.len(), "configuration read");
    }
}
