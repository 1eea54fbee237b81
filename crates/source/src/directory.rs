//! A directory of YAML files as the source of objects.
//!
//! Files are read in order of their names; of an object that two files define,
//! the first counts. A file with an error keeps what it last said without one,
//! so that a half-written file takes nothing away.

mod list;
mod read;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::tasks::Tasks;
use runtime::watch::Tree;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

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
/// How long a start waits for files that are being written.
const START: Duration = Duration::from_secs(2);

/// Follows a directory. The first update comes as soon as no file is being
/// written, and is whole.
///
/// # Errors
/// When the directory cannot be watched.
pub fn watch(tasks: &Tasks, root: &Path) -> Result<mpsc::Receiver<Update>, Error> {
    let failed = |source| Error { path: root.into(), source };
    // Watching begins before reading: what changes in between is read again.
    let tree = Tree::new(root).map_err(failed)?;
    let directory = Directory::new(root);
    let (tx, rx) = mpsc::channel(QUEUE);
    tasks.spawn("config directory", follow(tree, directory, tx));
    Ok(rx)
}

async fn follow(mut tree: Tree, mut directory: Directory, tx: mpsc::Sender<Update>) {
    let start = Instant::now();
    let mut is_first = true;
    loop {
        // Files may be large, and file systems slow: neither may hold up other tasks.
        let look = tokio::task::spawn_blocking(move || {
            let reading = directory.read(&mut tree);
            (tree, directory, reading)
        });
        let reading;
        (tree, directory, reading) = match look.await {
            Ok(look) => look,
            Err(error) => {
                error!(target: "config", %error, "reading the configuration ended: restart istiod");
                return;
            }
        };
        let again = reading.again;
        if is_first
            && let Some(wait) = again
            && start.elapsed() < START
        {
            tokio::time::sleep(wait).await;
            directory.tell_all();
            continue;
        }
        log(&reading, is_first);
        if (is_first || reading.has_news()) && tx.send(reading.update).await.is_err() {
            return;
        }
        is_first = false;
        match tokio::time::timeout(again.unwrap_or(RESCAN).min(RESCAN), tree.changed()).await {
            Ok(Ok(())) => tokio::time::sleep(SETTLE).await,
            Ok(Err(error)) => {
                warn!(target: "config", %error, "changes are no longer told; the directory is read from time to time");
                tokio::time::sleep(RESCAN).await;
            }
            Err(_) => {}
        }
    }
}

fn log(reading: &read::Reading, is_first: bool) {
    // Looks that were not told may have come before the first that is.
    let problems = if is_first { &reading.update.problems } else { &reading.new_problems };
    for problem in problems {
        match problem.severity {
            config::Severity::Error if !is_first => {
                warn!(target: "config", "{problem} (what the file said before stays in force)");
            }
            _ => warn!(target: "config", "{problem}"),
        }
    }
    let update = &reading.update;
    if is_first || reading.has_news() {
        info!(target: "config", applied = update.apply.len(), deleted = update.delete.len(), problems = update.problems.len(), "configuration read");
    }
}
