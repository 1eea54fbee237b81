//! Revocation lists that the user brings with a CA of their own: `ca-crl.pem`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::sync::watch;
use tracing::{info, warn};

/// File of the lists.
pub const FILE: &str = "ca-crl.pem";
/// Files of one change are written one after the other.
const QUIET: Duration = Duration::from_millis(100);

/// The lists of a directory, now and at every change; empty: none. Lists that
/// cannot be read change nothing.
pub fn follow(tasks: &Tasks, files: &Files, dir: &Path) -> watch::Receiver<String> {
    let path = dir.join(FILE);
    let mut changes = files.watch(std::slice::from_ref(&path));
    let (tell, seen) = watch::channel(String::new());
    tasks.spawn("revocation lists", async move {
        loop {
            match read(&path) {
                Ok(lists) => {
                    let is_other = tell.send_if_modified(|before| {
                        let is_other = *before != lists;
                        *before = lists;
                        is_other
                    });
                    if is_other {
                        info!(target: "ca", "{} is published", path.display());
                    }
                }
                Err(why) => {
                    warn!(target: "ca", "{}: {why} (what it said before stays in force)", path.display())
                }
            }
            changes.changed().await;
            tokio::time::sleep(QUIET).await;
        }
    });
    seen
}

fn read(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(String::new()),
        Ok(text) => pki::crl::check(&text).map(|_| text).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_are_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(&path), Ok(String::new()));
        fs::write(&path, "\n").unwrap();
        assert_eq!(read(&path), Ok(String::new()));
        fs::write(&path, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
        assert!(read(&path).is_err());
    }
}
