//! Follows what the authority is made of while istiod runs: the files of a
//! plug-in CA, and the age of a self-signed root.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use names::TrustDomain;
use pki::certificate::Certificate;
use pki::issuer::Issuer;
use runtime::watch::files::Changes;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::authority::{Authority, Current};
use super::overlap::{self, Kept, Side, Step};
use super::secret::Store;
use super::{plugged, selfsigned};
use crate::state_dir::StateDir;

/// Files of one change are written one after the other.
const QUIET: Duration = Duration::from_millis(100);
/// Kept roots are looked at that often, when nothing else happens.
const TIDY: Duration = Duration::from_secs(3600);
/// Between two attempts to read a Secret.
const RETRY: Duration = Duration::from_secs(5);

/// Takes over what is put into the directory of the plug-in CA, now and later:
/// also where none was before.
pub async fn plugged(authority: Authority, place: plugged::Place, mut changes: Changes) {
    let mut kept: Vec<Kept> = Vec::new();
    // Said once, until it is well again.
    let mut said = String::new();
    let mut again = None;
    loop {
        tokio::select! {
            () = changes.changed() => tokio::time::sleep(QUIET).await,
            () = tokio::time::sleep(again.unwrap_or(TIDY)) => {}
        }
        again = match load(&authority, &place, &mut kept) {
            Ok(again) => {
                said.clear();
                again
            }
            Err(why) => {
                if said != why {
                    error!(target: "ca", "{why}: the authority stays as it was");
                    said = why;
                }
                None
            }
        };
    }
}

/// Takes one step towards what the files say; the time after which to look again.
fn load(
    authority: &Authority,
    place: &plugged::Place,
    kept: &mut Vec<Kept>,
) -> Result<Option<Duration>, String> {
    let dir = place.dir.display().to_string();
    let Some(issuer) = place.open(SystemTime::now()).map_err(|error| error.to_string())? else {
        if authority.current().origin == plugged::ORIGIN {
            return Err(format!("the CA files in {dir} are gone"));
        }
        return Ok(None);
    };
    advance(authority, Arc::new(issuer), plugged::ORIGIN, &dir, kept)
}

/// Takes one step towards signing with `issuer`; the time after which to take the next.
fn advance(
    authority: &Authority,
    issuer: Arc<Issuer>,
    origin: &'static str,
    place: &str,
    kept: &mut Vec<Kept>,
) -> Result<Option<Duration>, String> {
    let now = SystemTime::now();
    let current = authority.current();
    // Others sign: nothing takes their place.
    let Some(signer) = &current.issuer else { return Ok(None) };
    let old = Side { signer: signer.certificate().der(), roots: signer.root_pem() };
    let new = Side { signer: issuer.certificate().der(), roots: issuer.root_pem() };
    let step = overlap::step(old, new, &current.roots, kept, authority.last_expiry(), now);
    match step.map_err(|error| error.to_string())? {
        Step::Nothing => Ok(None),
        Step::Publish { roots } => {
            info!(
                target: "ca",
                "new roots in {place}: published now, signed under in {}s", overlap::PUBLISH_FIRST.as_secs()
            );
            authority.replace(Current { issuer: Some(signer.clone()), roots, origin: current.origin });
            Ok(Some(overlap::PUBLISH_FIRST))
        }
        Step::Sign { roots, kept: now_kept } => {
            for old in &now_kept {
                let until = left(old.until, now);
                info!(target: "ca", "a root that is not in {place} stays trusted for {until}");
            }
            info!(target: "ca", serial = issuer.certificate().serial, "signs with what is in {place}");
            *kept = now_kept;
            authority.replace(Current { issuer: Some(issuer), roots, origin });
            Ok(None)
        }
    }
}

fn left(until: SystemTime, now: SystemTime) -> super::authority::GoDuration {
    super::authority::GoDuration(until.duration_since(now).unwrap_or_default())
}

/// How a self-signed root is renewed.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Between two looks (`CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL`).
    pub interval: Duration,
    /// The last part of a root's life, in percent, in which it is renewed
    /// (`CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE`).
    pub grace: u32,
    /// Lifetime of a root.
    pub ttl: Duration,
    /// Organization of the root.
    pub trust_domain: TrustDomain,
}

impl Renewal {
    /// Whether it is time for a new root.
    #[must_use]
    pub fn is_due(&self, issuer: &Issuer, now: SystemTime) -> bool {
        let certificate = issuer.certificate();
        let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        let grace = life * self.grace.min(100) / 100;
        now + grace >= certificate.not_after
    }
}

/// Renews the self-signed root of the state directory, with the same key, before
/// it ends: certificates under either verify with both.
pub async fn self_signed(authority: Authority, state: StateDir, renewal: Renewal) {
    loop {
        // Several istiods of one directory do not all look at once.
        let jitter: f64 = rand::random();
        tokio::time::sleep(renewal.interval.mul_f64(0.5 + jitter / 2.0)).await;
        let current = authority.current();
        let is_due = current.issuer.as_ref().is_some_and(|issuer| renewal.is_due(issuer, SystemTime::now()));
        if current.origin != selfsigned::ORIGIN || !is_due {
            continue;
        }
        match selfsigned::renew(&state, &renewal, SystemTime::now()) {
            Ok(issuer) => {
                let roots = issuer.root_pem().to_owned();
                info!(target: "ca", serial = issuer.certificate().serial, "the self-signed root is renewed");
                authority.replace(Current {
                    issuer: Some(Arc::new(issuer)),
                    roots,
                    origin: selfsigned::ORIGIN,
                });
            }
            Err(why) => warn!(target: "ca", "the self-signed root ends soon and cannot be renewed: {why}"),
        }
    }
}

/// Follows the root of a cluster's Secret, renews it before it ends, and takes over
/// what another istiod has put there.
pub async fn stored(
    authority: Authority,
    store: Store,
    renewal: Renewal,
    mut changes: watch::Receiver<String>,
) {
    let mut kept: Vec<Kept> = Vec::new();
    let mut again = None;
    // Said once, until it is well again.
    let mut said = String::new();
    loop {
        let jitter: f64 = rand::random();
        let look = renewal.interval.mul_f64(0.5 + jitter / 2.0).min(TIDY);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again.take().unwrap_or(look)) => {}
        }
        let current = authority.current();
        if current.origin != store.origin() {
            continue;
        }
        let step = match store.check(&renewal, SystemTime::now()).await {
            Ok(Some(issuer)) => {
                let signer = current.issuer.as_ref();
                let is_same = signer.is_some_and(|own| own.certificate().der() == issuer.certificate().der());
                if is_same && kept.is_empty() {
                    said.clear();
                    continue;
                }
                advance(&authority, Arc::new(issuer), store.origin(), store.name(), &mut kept)
            }
            // A copy of it may be put back; all istiods that run go on with what they have.
            Ok(None) => Err(format!("Secret {} is gone", store.name())),
            Err(error) => Err(error.to_string()),
        };
        match step {
            Ok(wait) => {
                said.clear();
                again = wait;
            }
            Err(why) => {
                if said != why {
                    error!(target: "ca", "{why}: the authority stays as it was");
                    said = why;
                }
                again = Some(RETRY);
            }
        }
    }
}

/// The roots of a file.
///
/// # Errors
/// When there are none.
pub fn read_roots(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
    Certificate::all_from_pem(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(text)
}

/// Takes over the roots of others, and tells of each change of their files: istiod's own
/// certificate is read again then.
pub async fn others(authority: Authority, roots: PathBuf, mut changes: Changes) {
    loop {
        changes.changed().await;
        tokio::time::sleep(QUIET).await;
        match read_roots(&roots) {
            Ok(roots) => {
                authority.replace(Current { issuer: None, roots, origin: authority.current().origin })
            }
            Err(why) => error!(target: "ca", "{why}: the last roots stay"),
        }
    }
}

/// Writes the roots where agents of this machine and installers read them, now and
/// at every change.
pub async fn publish(authority: Authority, state: StateDir, file: &'static str) {
    let mut changes = authority.subscribe();
    while changes.changed().await.is_ok() {
        let roots = changes.borrow_and_update().roots.clone();
        if let Err(why) = state.lock().and_then(|locked| locked.publish(file, &roots)) {
            warn!(target: "ca", "the roots cannot be written: {why}");
        }
    }
}

#[cfg(test)]
mod tests;
