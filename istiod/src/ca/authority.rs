//! Holds the signing key and signs: workload certificates for callers, and
//! istiod's own serving certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use names::{SpiffeId, TrustDomain};
use pki::csr::Csr;
use pki::issuer::{self, Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use rustls::ServerConfig;

use super::selfsigned::{KEY_FILE, ROOT_FILE};
use super::{plugged, selfsigned};
use crate::config::Settings;
use crate::state_dir::{self, StateDir};

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
    /// Signing failed.
    #[error(transparent)]
    Issue(#[from] issuer::Error),
    /// A request asks for too long a lifetime.
    #[error("requested TTL {}s is greater than the max allowed TTL {}s", requested.as_secs(), max.as_secs())]
    Ttl {
        /// Asked for.
        requested: Duration,
        /// Allowed.
        max: Duration,
    },
    /// istiod's own TLS settings cannot be made.
    #[error("istiod's serving certificate: {0}")]
    Serving(String),
}

/// The authority of the mesh; cheap to clone.
#[derive(Clone, Debug)]
pub struct Authority {
    issuer: Arc<Issuer>,
    default_ttl: Duration,
    max_ttl: Duration,
    /// Where the signing key comes from, for logs.
    pub origin: &'static str,
}

impl Authority {
    /// The plug-in CA if its files are there, else the self-signed root of the
    /// state directory.
    ///
    /// # Errors
    /// When neither can be loaded.
    pub fn open(settings: &Settings, state: &StateDir, now: SystemTime) -> Result<Self, Error> {
        let (issuer, origin) = match plugged::open(&settings.ca_dir, now)? {
            Some(issuer) => (issuer, "plug-in CA files"),
            None => {
                let domain = trust_domain(settings);
                (
                    selfsigned::open(state, &domain, settings.root_ttl, now)?,
                    "self-signed root of the state directory",
                )
            }
        };
        Ok(Self {
            issuer: Arc::new(issuer),
            default_ttl: settings.workload_ttl,
            max_ttl: settings.max_workload_ttl,
            origin,
        })
    }

    /// The roots of the mesh, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.issuer.root_pem()
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
        let ttl = ttl.unwrap_or(self.default_ttl);
        if ttl > self.max_ttl {
            return Err(Error::Ttl { requested: ttl, max: self.max_ttl });
        }
        let sans: Vec<San> = caller.iter().cloned().map(San::Spiffe).collect();
        Ok(self.issuer.issue(csr, &sans, ttl, now)?)
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
        let chain = self.issuer.issue(&csr, names, ttl, now)?;
        let config = pki::verify::server_config(&chain.concat(), &key, self.root_pem(), &[b"h2"])
            .map_err(|error| failed(&error))?;
        Ok(Arc::new(config))
    }
}

/// The mesh's trust domain; the default when it is set to something unusable,
/// which reading the mesh configuration has refused already.
pub(crate) fn trust_domain(settings: &Settings) -> TrustDomain {
    settings.mesh.trust_domain().parse().unwrap_or_default()
}
