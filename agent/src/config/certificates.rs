//! Settings of certificates: the workload's own, and those that connections
//! to the control plane are made with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pki::key::{Algorithm, Format};

/// Where the workload's certificate comes from and which one it is.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Where key and certificate come from.
    pub source: Source,
    /// The CA.
    pub ca: Endpoint,
    /// Lifetime that is asked for.
    pub ttl: Duration,
    /// Part of the lifetime that is left when a new one is asked for.
    pub grace_ratio: f64,
    /// Random part of that.
    pub grace_jitter: f64,
    /// Kind of key.
    pub algorithm: Algorithm,
    /// Encoding of the key as it is handed out.
    pub format: Format,
    /// Signer to be told to the CA; usually empty.
    pub signer: String,
    /// File whose roots are trusted instead of those that come with the
    /// certificate (an older layout: `./etc/certs/root-cert.pem`).
    pub own_roots: Option<PathBuf>,
    /// Roots that are trusted besides (`caCertificatesPem`), PEM.
    pub more_roots: Vec<String>,
    /// More of them come over xDS (`PROXY_CONFIG_XDS_AGENT`).
    pub roots_over_xds: bool,
    /// Where key and certificates are written to, if the user asks for it.
    pub output: Option<Output>,
}

/// Where the workload's key and certificate come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the CA, for a key that is made here.
    Csr,
    /// From files.
    Files(Files),
    /// From another SDS server on the workload's socket; decided at start.
    External,
}

/// Key and certificates as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, PEM, leaf first.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The roots, PEM.
    pub roots: PathBuf,
}

/// Where key and certificates are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The directory.
    pub dir: PathBuf,
    /// Mode of the files.
    pub mode: u32,
}

/// A server of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`.
    pub address: String,
    /// Name that its certificate must have.
    pub server_name: String,
    /// How the connection is secured.
    pub security: Security,
    /// Headers of every call.
    pub headers: BTreeMap<String, String>,
}

/// How a connection to the control plane is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// TLS with what is in files, read for every connection.
    Tls {
        /// The roots, PEM.
        roots: PathBuf,
        /// What the agent shows of itself, if anything.
        client: Option<ClientPair>,
    },
}

/// A certificate for the agent's side of a connection. While it is missing or
/// over, connections are made without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPair {
    /// The chain, PEM, leaf first.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}
