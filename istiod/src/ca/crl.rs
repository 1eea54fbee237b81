//! Revocation lists that the user brings with a CA of their own: `ca-crl.pem`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pki::certificate::Certificate;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::sync::watch;
use tracing::{info, warn};

use super::authority::{Authority, Current};

/// File of the lists.
pub const FILE: &str = "ca-crl.pem";
/// Files of one change are written one after the other.
const QUIET: Duration = Duration::from_millis(100);

/// The lists of a directory, now and at every change; empty: none. Lists that
/// cannot be used with the authority change nothing.
pub fn follow(tasks: &Tasks, files: &Files, dir: &Path, authority: &Authority) -> watch::Receiver<String> {
    let path = dir.join(FILE);
    let mut changes = files.watch(std::slice::from_ref(&path));
    let mut current = authority.subscribe();
    let (tell, seen) = watch::channel(String::new());
    tasks.spawn("revocation lists", async move {
        loop {
            let authority = current.borrow_and_update().clone();
            match read(&path, &authority) {
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
            // Lists of a new authority are there before it signs.
            tokio::select! {
                () = changes.changed() => tokio::time::sleep(QUIET).await,
                changed = current.changed() => if changed.is_err() { return },
            }
        }
    });
    seen
}

fn read(path: &Path, authority: &Current) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(String::new()),
        Ok(text) => {
            let Some(issuer) = &authority.issuer else { return Ok(String::new()) };
            let mut chain = vec![issuer.certificate().clone()];
            let between = Certificate::all_from_pem(&issuer.chain().concat()).unwrap_or_default();
            chain.extend(between.into_iter().filter(|one| one != issuer.certificate()));
            let roots = Certificate::all_from_pem(issuer.root_pem()).unwrap_or_default();
            pki::crl::covers(&text, &chain, &roots).map(|()| text).map_err(|error| error.to_string())
        }
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
        let hour = Duration::from_secs(3600);
        let (issuer, _) = pki::issuer::Issuer::self_signed("a", hour, std::time::SystemTime::now()).unwrap();
        let authority = Authority::new(issuer, "test", hour, hour).current();
        let read = |path| read(path, &authority);
        assert_eq!(read(&path), Ok(String::new()));
        fs::write(&path, "\n").unwrap();
        assert_eq!(read(&path), Ok(String::new()));
        fs::write(&path, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
        assert!(read(&path).is_err());
    }
}
