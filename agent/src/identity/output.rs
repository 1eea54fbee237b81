//! Writes key and certificates to files for programs other than Envoy
//! (`OUTPUT_CERTS`), after each change. That it fails is never a reason to
//! stop: it is told, counted and tried again.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::backoff::Backoff;
use tracing::{debug, info, warn};

use super::told::Told;
use super::{Current, Identity};
use crate::config::certificates::Output;
use crate::metrics::Metrics;

/// Waits between tries, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Writes each identity. Runs until the process ends.
pub async fn run(output: Output, mut current: Current, metrics: Arc<Metrics>) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let told = Told::new();
    loop {
        let identity = current.borrow_and_update().clone();
        if let Some(identity) = identity {
            let (target, content) = (output.clone(), identity.clone());
            // A slow disk must not keep Envoy waiting.
            let written = tokio::task::spawn_blocking(move || write(&target, &content)).await;
            match written {
                Ok(Ok(false)) => {
                    debug!(target: "cache", dir = %output.dir.display(), "certificates are written already")
                }
                Ok(Ok(true)) => {
                    info!(target: "cache", dir = %output.dir.display(), serial = identity.serial, "certificates written");
                }
                // The blocking thread is gone only when the process ends.
                Err(_) => return,
                Ok(Err(error)) => {
                    metrics.identity.output_failures.inc();
                    let wait = backoff.next_wait();
                    let text = error.to_string();
                    if told.is_new(&text) {
                        warn!(target: "cache", error = text, ?wait, "certificates not written; trying again");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        Ok(()) = current.changed() => {}
                    }
                    continue;
                }
            }
            backoff.reset();
            told.clear();
        }
        if current.changed().await.is_err() {
            return;
        }
    }
}

/// Writes what has changed; returns whether anything had.
///
/// # Errors
/// The first file that cannot be written.
pub fn write(output: &Output, identity: &Identity) -> Result<bool, Error> {
    let Output { dir, mode } = output;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error { path, source }
    };
    // Whoever may read the files must be able to reach them.
    let dir_mode = mode | (mode & 0o444) >> 2;
    fs::DirBuilder::new().recursive(true).mode(dir_mode).create(dir).map_err(failed(dir))?;
    // New roots first: who reads in between trusts more, not less.
    let files = [
        ("root-cert.pem", identity.roots_pem.as_str()),
        ("key.pem", identity.key_pem.as_str()),
        ("cert-chain.pem", identity.chain_pem.as_str()),
    ];
    let mut staged = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = dir.join(name);
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            continue;
        }
        let temporary = dir.join(format!(".{name}.tmp"));
        let made = stage(&temporary, text, *mode);
        staged.push((temporary, path.clone()));
        if let Err(source) = made {
            // Neither a part of a key nor one without its chain is of use to anybody.
            for (temporary, _) in &staged {
                fs::remove_file(temporary).ok();
            }
            return Err(Error { path, source });
        }
    }
    // All that takes time is done: key and chain change as good as together.
    for (temporary, path) in &staged {
        fs::rename(temporary, path).map_err(failed(path))?;
    }
    Ok(!staged.is_empty())
}

fn stage(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Created anew, so that nobody has it open or has put a link there.
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The mask of the process is not asked.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    // An empty file after a crash would be worse than the old one.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use zeroize::Zeroizing;

    use super::*;

    fn identity(key: &str, roots: &str) -> Identity {
        Identity {
            chain_pem: format!("chain of {key}"),
            key_pem: Arc::new(Zeroizing::new(key.into())),
            roots_pem: roots.into(),
            created: SystemTime::UNIX_EPOCH,
            expires: SystemTime::UNIX_EPOCH,
            roots_expire: None,
            serial: key.into(),
            uris: Vec::new(),
        }
    }

    #[test]
    fn only_what_has_changed_is_written_and_with_that_mode() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o644] {
            let output = Output { dir: root.path().join(format!("{mode:o}/deep")), mode };
            let at = |name: &str| output.dir.join(name);
            assert!(write(&output, &identity("a", "r")).unwrap());
            assert!(!write(&output, &identity("a", "r")).unwrap());
            let dir_mode = if mode == 0o600 { 0o700 } else { 0o755 };
            assert_eq!(fs::metadata(&output.dir).unwrap().permissions().mode() & 0o777, dir_mode);
            let before = fs::metadata(at("root-cert.pem")).unwrap().modified().unwrap();
            assert!(write(&output, &identity("b", "r")).unwrap());
            for (name, text) in [("key.pem", "b"), ("cert-chain.pem", "chain of b"), ("root-cert.pem", "r")] {
                assert_eq!(fs::read_to_string(at(name)).unwrap(), text);
                assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, mode);
            }
            assert_eq!(fs::metadata(at("root-cert.pem")).unwrap().modified().unwrap(), before);
            assert_eq!(fs::read_dir(&output.dir).unwrap().count(), 3, "nothing is left behind");
        }
    }

    #[test]
    fn no_key_is_left_beside_files_that_cannot_be_written() {
        let root = tempfile::tempdir().unwrap();
        let output = Output { dir: root.path().into(), mode: 0o600 };
        // In the way of the chain, which comes after the key.
        fs::create_dir_all(root.path().join(".cert-chain.pem.tmp/full")).unwrap();
        write(&output, &identity("a", "r")).unwrap_err();
        let left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".cert-chain.pem.tmp"]);
    }

    #[tokio::test]
    async fn a_failure_is_counted_and_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("blocked");
        fs::write(&dir, "a file").unwrap();
        let metrics = Arc::new(Metrics::default());
        let (tx, current) = tokio::sync::watch::channel(Some(Arc::new(identity("a", "r"))));
        let output = Output { dir: dir.clone(), mode: 0o600 };
        let tasks = runtime::tasks::Tasks::new();
        drop(tasks.spawn("output", run(output, current, metrics.clone())));
        while metrics.identity.output_failures.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fs::remove_file(&dir).unwrap();
        while fs::read_to_string(dir.join("cert-chain.pem")).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tx.send_replace(Some(Arc::new(identity("b", "r"))));
        while fs::read_to_string(dir.join("key.pem")).unwrap() != "b" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(tasks.stop(Duration::from_secs(60)).await);
    }
}
