//! Settings of the secrets that are served to Envoy, and of the agent's sockets.

use std::path::PathBuf;
use std::time::Duration;

use crate::unix::Access;

/// How secrets are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sds {
    /// The socket that Envoy gets the workload's secrets from. The agent serves
    /// it, unless another server is there at the start.
    pub workload: PathBuf,
    /// That socket has another name than the agent's, so that there must be
    /// another server.
    pub is_renamed: bool,
    /// The socket that the agent serves files on when there is another server.
    pub files: PathBuf,
    /// The socket of a server of certificates that gateways name `sds://NAME`.
    pub credentials: PathBuf,
    /// Who may connect to the agent's sockets.
    pub access: Access,
    /// Time that writers of files have between the first change and the last.
    pub debounce: Duration,
    /// File with lists of revoked certificates, which need not be there;
    /// `None` when it is not to be looked at.
    pub revoked: Option<PathBuf>,
    /// What Envoy works with private keys by, if not by itself.
    pub key_provider: Option<KeyProvider>,
}

/// An accelerator of private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyProvider {
    /// Which one.
    pub kind: ProviderKind,
    /// Longest wait for more requests before some are worked on.
    pub poll_delay: Duration,
    /// Where the hardware lacks it, Envoy works by itself.
    pub fallback: bool,
}

/// Kinds of accelerators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Intel's CryptoMB, by AVX-512.
    CryptoMb,
    /// Intel's QuickAssist Technology.
    Qat,
}
