//! A root of istiod's own, kept in the state directory.

use std::time::{Duration, SystemTime};

use names::TrustDomain;
use pki::issuer::{Issuer, Material, Pem};
use pki::key::{Algorithm, PrivateKey};
use tracing::warn;

use super::authority::Error;
use super::follow::Renewal;
use crate::state_dir::StateDir;

/// What logs say of it.
pub const ORIGIN: &str = "self-signed root of the state directory";
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
    let locked = state.lock()?;
    let unusable = |why: String| Error::Own { dir: state.path().into(), why };
    let make = |key: PrivateKey| Issuer::self_signed_by(key, trust_domain.as_str(), ttl, now);
    match (locked.read(ROOT_FILE)?, locked.read(KEY_FILE)?) {
        (Some(root), Some(key)) => {
            let root = Pem { file: ROOT_FILE, text: &root };
            let key = Pem { file: KEY_FILE, text: &key };
            let chain = Pem { file: ROOT_FILE, text: "" };
            Issuer::load(&Material { cert: root, key, chain, root }, now)
                .map_err(|error| unusable(error.to_string()))
        }
        (Some(_), None) => Err(unusable(format!("{KEY_FILE} is not there"))),
        (None, Some(key)) => {
            // The key is put in place first: a start ended between the two files.
            let key = PrivateKey::from_pem(&key).map_err(|error| unusable(format!("{KEY_FILE}: {error}")))?;
            warn!(target: "ca", dir = %state.path().display(), "{KEY_FILE} has no {ROOT_FILE}: making it");
            let issuer = make(key)?;
            locked.create(ROOT_FILE, issuer.root_pem())?;
            Ok(issuer)
        }
        (None, None) => {
            let key = PrivateKey::generate(Algorithm::EcdsaP256)
                .map_err(|error| unusable(format!("{KEY_FILE}: {error}")))?;
            let pem = key.to_pkcs8_pem();
            let issuer = make(key)?;
            locked.create(KEY_FILE, &pem)?;
            locked.create(ROOT_FILE, issuer.root_pem())?;
            Ok(issuer)
        }
    }
}

/// A new root for the key of the state directory, in the place of the old one. If
/// another istiod of the directory was faster, its root.
///
/// # Errors
/// When it cannot be read, made or kept.
pub fn renew(state: &StateDir, renewal: &Renewal, now: SystemTime) -> Result<Issuer, Error> {
    let there = open(state, &renewal.trust_domain, renewal.ttl, now)?;
    if !renewal.is_due(&there, now) {
        return Ok(there);
    }
    let locked = state.lock()?;
    let unusable = |why: String| Error::Own { dir: state.path().into(), why };
    let key = locked.read(KEY_FILE)?.ok_or_else(|| unusable(format!("{KEY_FILE} is not there")))?;
    let key = PrivateKey::from_pem(&key).map_err(|error| unusable(format!("{KEY_FILE}: {error}")))?;
    let issuer = Issuer::self_signed_by(key, renewal.trust_domain.as_str(), renewal.ttl, now)?;
    locked.replace(ROOT_FILE, issuer.root_pem())?;
    Ok(issuer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn start(dir: &std::path::Path) -> Result<String, String> {
        let state = StateDir::open(dir).map_err(|error| error.to_string())?;
        let issuer = open(&state, &TrustDomain::default(), YEAR, SystemTime::now());
        issuer
            .map(|issuer| issuer.root_pem().to_owned())
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn a_key_without_certificate_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path()).unwrap();
        let key = fs::read(dir.path().join(KEY_FILE)).unwrap();
        fs::remove_file(dir.path().join(ROOT_FILE)).unwrap();
        let root = start(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join(KEY_FILE)).unwrap(), key, "the key stays");
        assert_eq!(start(dir.path()).unwrap(), root, "and the next start finds both");
    }

    #[test]
    fn a_root_is_renewed_with_its_key_when_its_end_is_near() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let first = open(&state, &TrustDomain::default(), YEAR, now).unwrap();
        let renewal = Renewal { interval: YEAR, grace: 20, ttl: YEAR, trust_domain: TrustDomain::default() };
        let early = renew(&state, &renewal, now + YEAR / 2).unwrap();
        assert_eq!(early.root_pem(), first.root_pem());
        let late = now + YEAR * 9 / 10;
        let second = renew(&state, &renewal, late).unwrap();
        assert_ne!(second.root_pem(), first.root_pem());
        assert_eq!(renew(&state, &renewal, late).unwrap().root_pem(), second.root_pem(), "once");
        // What the new one signs verifies with the old one, and the other way round.
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = pki::csr::Csr::of_key(&key).unwrap();
        let id = pki::issuer::San::Spiffe("spiffe://cluster.local/ns/a/sa/b".parse().unwrap());
        for (signer, root) in [(&first, &second), (&second, &first)] {
            let chain = signer.issue(&csr, std::slice::from_ref(&id), YEAR / 100, late).unwrap();
            pki::verify::check_chain(&chain[0], root.root_pem(), late).unwrap();
        }
    }

    #[test]
    fn many_at_once_have_one_root() {
        let dir = tempfile::tempdir().unwrap();
        let roots: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16).map(|_| scope.spawn(|| start(dir.path()))).collect();
            starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn a_damaged_file_is_named_once_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path()).unwrap();
        let root = fs::read_to_string(dir.path().join(ROOT_FILE)).unwrap();
        let key = fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (file, text, says) in [
            (ROOT_FILE, "", "root-cert.pem: no certificate found"),
            (ROOT_FILE, bad, "root-cert.pem: certificate 1: "),
            (KEY_FILE, "no key", "ca-key.pem: no private key found"),
        ] {
            fs::write(dir.path().join(ROOT_FILE), &root).unwrap();
            fs::write(dir.path().join(KEY_FILE), &key).unwrap();
            fs::write(dir.path().join(file), text).unwrap();
            let error = start(dir.path()).unwrap_err();
            assert_eq!(error.matches(says).count(), 1, "{error}");
            assert!(!error.contains("ca-cert.pem") && error.contains("for a new root"), "{error}");
        }
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        assert!(start(dir.path()).unwrap_err().contains("ca-key.pem is not there"));
    }
}
