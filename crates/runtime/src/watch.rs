//! Tells when something below a directory has changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use inotify::{Inotify, WatchMask, Watches};
use tokio::sync::mpsc;

use crate::tasks::Tasks;

/// Directories below each other that are followed; a loop of links ends here.
const DEPTH: usize = 16;
/// Bytes for events; what does not fit comes with the next read.
const BUFFER: usize = 16 * 1024;

/// Watches a directory and those below it. Each item says that something has
/// been written, moved or removed since the one before; a file that is being
/// written counts when its writer closes it.
///
/// # Errors
/// When the directory cannot be watched.
pub fn tree(tasks: &Tasks, root: &Path) -> io::Result<mpsc::Receiver<()>> {
    // One item is enough: it says "look again", however much has happened.
    let (tx, rx) = mpsc::channel(1);
    let inotify = Inotify::init()?;
    let mut watches = inotify.watches();
    watches.add(root, mask())?;
    add_below(&mut watches, root, DEPTH);
    let root: PathBuf = root.into();
    let mut events = inotify.into_event_stream(vec![0; BUFFER])?;
    tasks.spawn("watch", async move {
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => {
                    // A new directory may be among what has changed; watching
                    // one again that is watched already changes nothing.
                    if watches.add(&root, mask()).is_ok() {
                        add_below(&mut watches, &root, DEPTH);
                    }
                }
                Err(error) => tracing::warn!(root = %root.display(), %error, "watch"),
            }
            if let Err(mpsc::error::TrySendError::Closed(())) = tx.try_send(()) {
                return;
            }
        }
    });
    Ok(rx)
}

fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
}

/// Watches the directories below `dir`; those that vanish meanwhile are skipped.
fn add_below(watches: &mut Watches, dir: &Path, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() && watches.add(&path, mask()).is_ok() {
            add_below(watches, &path, depth);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sees_writes_in_old_and_new_directories() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let mut changes = tree(&tasks, dir.path()).unwrap();
        let mut next = async || tokio::time::timeout(Duration::from_secs(5), changes.recv()).await.unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        next().await.unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        next().await.unwrap();
        // The new directory is watched before its creation is told.
        fs::write(dir.path().join("sub/b"), "1").unwrap();
        next().await.unwrap();
        tasks.stop(Duration::from_secs(1)).await;
    }
}
