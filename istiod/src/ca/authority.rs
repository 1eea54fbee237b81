//! Holds the signing key and signs: workload certificates for callers, and
//! istiod's own serving certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use names::{SpiffeId, TrustDomain};
use pki::csr::Csr;
use pki::issuer::{self, Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use rustls::ServerConfig;
use tokio::sync::watch;

use super::selfsigned::{KEY_FILE, ROOT_FILE};
use crate::config::Settings;
use crate::state_dir;

/// Why there is no authority, or why it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] state_dir::Error),
    /// A CA file cannot be read.
    #[error("read {path}: {why}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// Some of the files are there, others not.
    #[error("incomplete signing CA bundle detected in {dir}: {missing} not there", dir = dir.display(), missing = missing.join(", "))]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        missing: Vec<&'static str>,
    },
    /// The files do not make a CA.
    #[error("CA files in {dir}: {why}", dir = dir.display())]
    Files {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with them.
        why: issuer::Error,
    },
    /// The files of the state directory do not make a CA.
    #[error(
        "the self-signed CA in {dir}: {why}; restore the file from a copy, or remove {KEY_FILE} and {ROOT_FILE} \
         for a new root, which every workload must then be given",
        dir = dir.display()
    )]
    Own {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// The Secret of the cluster does not make a CA.
    #[error(transparent)]
    Stored(#[from] super::secret::Error),
    /// A signer of the cluster does not sign.
    #[error(transparent)]
    Registrar(#[from] super::registrar::Error),
    /// Signing failed.
    #[error(transparent)]
    Issue(#[from] issuer::Error),
    /// A request asks for too long a lifetime.
    #[error("requested TTL {requested} is greater than the max allowed TTL {max}")]
    Ttl {
        /// Asked for.
        requested: GoDuration,
        /// Allowed.
        max: GoDuration,
    },
    /// Others sign.
    #[error("istiod has no signing key: {0}")]
    NoKey(&'static str),
    /// istiod's own TLS settings cannot be made.
    #[error("istiod's serving certificate: {0}")]
    Serving(String),
}

/// What the authority is made of at one time.
#[derive(Debug)]
pub struct Current {
    /// What signs; nothing where others do.
    pub issuer: Option<Arc<Issuer>>,
    /// The roots that members of the mesh trust, PEM: those of the issuer, and others
    /// while one takes the place of another.
    pub roots: String,
    /// Where the signing key comes from, for logs.
    pub origin: &'static str,
}

/// The authority of the mesh; cheap to clone, and all clones change together.
#[derive(Clone, Debug)]
pub struct Authority {
    current: Arc<watch::Sender<Arc<Current>>>,
    /// Roots of callers whose certificates are signed by others, PEM.
    others: Arc<str>,
    default_ttl: Duration,
    max_ttl: Duration,
    /// Until when the last of the certificates issued so far is valid, in seconds since 1970.
    last_expiry: Arc<AtomicU64>,
}

impl Authority {
    /// An authority that signs with `issuer`.
    #[must_use]
    pub fn new(issuer: Issuer, origin: &'static str, default_ttl: Duration, max_ttl: Duration) -> Self {
        let roots = issuer.root_pem().to_owned();
        Self::of(Current { issuer: Some(Arc::new(issuer)), roots, origin }, default_ttl, max_ttl)
    }

    /// An authority without a key: others sign, and these are the roots.
    #[must_use]
    pub fn without_key(
        roots: String,
        origin: &'static str,
        default_ttl: Duration,
        max_ttl: Duration,
    ) -> Self {
        Self::of(Current { issuer: None, roots, origin }, default_ttl, max_ttl)
    }

    fn of(current: Current, default_ttl: Duration, max_ttl: Duration) -> Self {
        Self {
            current: Arc::new(watch::Sender::new(Arc::new(current))),
            others: "".into(),
            default_ttl,
            max_ttl,
            last_expiry: Arc::default(),
        }
    }

    /// Callers may have certificates of these roots, too.
    #[must_use]
    pub fn with_others(mut self, roots: &str) -> Self {
        self.others = roots.into();
        self
    }

    /// Roots of callers whose certificates are signed by others, PEM.
    #[must_use]
    pub fn others(&self) -> &str {
        &self.others
    }

    /// What it is made of now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// Tells what it is made of, and of every change of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// Signs with another key, or trusts other roots, from now on.
    pub fn replace(&self, current: Current) {
        self.current.send_replace(Arc::new(current));
    }

    /// The roots of the mesh, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.current().roots.clone()
    }

    /// Until when certificates that were issued so far are valid.
    #[must_use]
    pub fn last_expiry(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.last_expiry.load(Ordering::Relaxed))
    }

    /// Signs a workload certificate for the caller; the request contributes
    /// its public key and nothing else.
    ///
    /// A `ttl` of `None` means the default.
    ///
    /// # Errors
    /// When the lifetime is too long or signing fails.
    pub fn sign(
        &self,
        csr: &Csr,
        caller: &[SpiffeId],
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let ttl = self.lifetime(ttl)?;
        let sans: Vec<San> = caller.iter().cloned().map(San::Spiffe).collect();
        let current = self.current();
        let issuer = current.issuer.as_ref().ok_or(Error::NoKey(current.origin))?;
        let mut chain = issuer.issue(csr, &sans, ttl, now)?;
        // The last element is the roots.
        chain.pop();
        chain.push(current.roots.clone());
        let expiry = now.checked_add(ttl).unwrap_or(now).min(issuer.not_after());
        let seconds = expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last_expiry.fetch_max(seconds, Ordering::Relaxed);
        Ok(chain)
    }

    /// The lifetime of a certificate for which this one is asked.
    ///
    /// # Errors
    /// When it is too long.
    pub fn lifetime(&self, asked: Option<Duration>) -> Result<Duration, Error> {
        let ttl = asked.unwrap_or(self.default_ttl);
        if ttl > self.max_ttl {
            return Err(Error::Ttl { requested: GoDuration(ttl), max: GoDuration(self.max_ttl) });
        }
        Ok(ttl)
    }

    /// TLS settings of istiod's own port: a certificate of this authority for
    /// `names`, client certificates of the mesh accepted but not required.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn serving(&self, names: &[San], ttl: Duration, now: SystemTime) -> Result<Arc<ServerConfig>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Serving(error.to_string());
        let key = PrivateKey::generate(Algorithm::EcdsaP256).map_err(|error| failed(&error))?;
        let csr = Csr::of_key(&key).map_err(|error| failed(&error))?;
        let current = self.current();
        let issuer = current.issuer.as_ref().ok_or(Error::NoKey(current.origin))?;
        let chain = issuer.issue(&csr, names, ttl, now)?;
        self.serving_with(&chain.concat(), &key)
    }

    /// The same with a certificate of others.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn serving_with(&self, chain: &str, key: &PrivateKey) -> Result<Arc<ServerConfig>, Error> {
        let clients = pki::certificate::join_pem(&[self.root_pem().as_str(), &self.others]);
        let config = pki::verify::server_config(chain, key, &clients, &[b"h2", b"http/1.1"])
            .map_err(|error| Error::Serving(error.to_string()))?;
        Ok(Arc::new(config))
    }
}

/// A length of time, written as Go does: `2160h0m1s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

/// The mesh's trust domain; the default when it is set to something unusable,
/// which reading the mesh configuration has refused already.
pub(crate) fn trust_domain(settings: &Settings) -> TrustDomain {
    settings.mesh.trust_domain().parse().unwrap_or_default()
}
