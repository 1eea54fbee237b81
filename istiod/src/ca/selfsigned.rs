//! A root of istiod's own, kept in the state directory.

use std::time::{Duration, SystemTime};

use names::TrustDomain;
use pki::issuer::{Issuer, Material};

use super::authority::Error;
use crate::state_dir::StateDir;

/// File of the signing key.
pub const KEY_FILE: &str = "ca-key.pem";
/// File of the root certificate.
pub const ROOT_FILE: &str = "root-cert.pem";

/// Loads the root of the state directory, making it when there is none.
///
/// # Errors
/// When it cannot be read, made or kept.
pub fn open(
    state: &StateDir,
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> Result<Issuer, Error> {
    if let Some(issuer) = load(state, now)? {
        return Ok(issuer);
    }
    let (issuer, key) = Issuer::self_signed(trust_domain.as_str(), ttl, now)?;
    let files = [(ROOT_FILE, issuer.root_pem()), (KEY_FILE, key.as_str())];
    match state.create(&files) {
        Ok(()) => Ok(issuer),
        // Another istiod on the same directory was faster: its root counts.
        Err(error) if error.is_already_there() => load(state, now)?.ok_or(Error::State(error)),
        Err(error) => Err(Error::State(error)),
    }
}

fn load(state: &StateDir, now: SystemTime) -> Result<Option<Issuer>, Error> {
    let Some(root) = state.read(ROOT_FILE)? else { return Ok(None) };
    let key = state
        .read(KEY_FILE)?
        .ok_or_else(|| Error::Incomplete { dir: state.path().into(), missing: vec![KEY_FILE] })?;
    let material = Material { cert: &root, key: &key, chain: "", root: &root };
    Issuer::load(&material, now).map(Some).map_err(|source| Error::Files { dir: state.path().into(), source })
}
