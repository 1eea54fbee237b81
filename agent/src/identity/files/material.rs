//! What files hold, and whether it can be used.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pki::certificate::Certificate;
use pki::{bundle, crl, pair};
use zeroize::Zeroizing;

/// A file is not longer than this: bundles of all the roots there are have some
/// hundred kilobytes, and lists of revoked certificates some megabytes.
const MAX_BYTES: u64 = 16 << 20;

/// Files that make up one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paths {
    /// A certificate and its key.
    Pair {
        /// The chain, PEM, leaf first.
        chain: PathBuf,
        /// The key, PEM.
        key: PathBuf,
    },
    /// Roots, PEM.
    Roots(PathBuf),
    /// Lists of revoked certificates, PEM; there may be none.
    Revoked(PathBuf),
}

/// What files hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Material {
    /// A certificate and its key.
    Pair(Pair),
    /// Roots, PEM.
    Roots(String),
    /// Lists of revoked certificates, PEM.
    Revoked(String),
}

/// A certificate and its key that belong together.
#[derive(PartialEq, Eq)]
pub struct Pair {
    /// The chain, PEM, leaf first.
    pub chain_pem: String,
    /// The key, PEM.
    pub key_pem: Zeroizing<String>,
    /// The first certificate of the chain.
    pub leaf: Certificate,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("serial", &self.leaf.serial).finish_non_exhaustive()
    }
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("{}: {length} bytes; at most {MAX_BYTES} are read", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// Certificate and key.
    #[error("{} and {}: {source}", chain.display(), key.display())]
    Pair {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        source: pair::Error,
    },
    /// There is no good root.
    #[error("{}: no usable root certificate: {why}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with those that there are.
        why: String,
    },
    /// Lists of revoked certificates.
    #[error("{}: {source}", path.display())]
    Revoked {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: crl::Error,
    },
}

impl Error {
    /// Whether a file is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Paths {
    /// All of them.
    pub(super) fn all(&self) -> Vec<&Path> {
        match self {
            Self::Pair { chain, key } => vec![chain, key],
            Self::Roots(path) | Self::Revoked(path) => vec![path],
        }
    }

    /// Whether it is no mistake when the files are not there.
    pub(super) fn is_optional(&self) -> bool {
        matches!(self, Self::Revoked(_))
    }

    /// Reads and checks the files; returns warnings as well.
    pub(super) fn read(&self) -> Result<(Material, Vec<String>), Error> {
        match self {
            Self::Pair { chain, key } => {
                let (chain_pem, key_pem) = (read(chain)?, read(key)?);
                let leaf = pair::check(&chain_pem, &key_pem).map_err(|source| Error::Pair {
                    chain: chain.clone(),
                    key: key.clone(),
                    source,
                })?;
                let chain_pem = chain_pem.as_str().to_owned();
                Ok((Material::Pair(Pair { chain_pem, key_pem, leaf }), Vec::new()))
            }
            Self::Roots(path) => {
                let bundle = bundle::read(&read(path)?);
                if bundle.count == 0 {
                    let why = match bundle.problems.as_slice() {
                        [] => "it holds no PEM of the kind CERTIFICATE".to_owned(),
                        problems => problems.join("; "),
                    };
                    return Err(Error::Roots { path: path.clone(), why });
                }
                Ok((Material::Roots(bundle.pem), bundle.problems))
            }
            Self::Revoked(path) => {
                let pem = read(path)?;
                crl::check(&pem).map_err(|source| Error::Revoked { path: path.clone(), source })?;
                Ok((Material::Revoked(pem.as_str().to_owned()), Vec::new()))
            }
        }
    }
}

impl fmt::Display for Paths {
    /// As the resource is called that stands for the files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair { chain, key } => write!(f, "file-cert:{}~{}", chain.display(), key.display()),
            Self::Roots(path) => write!(f, "file-root:{}", path.display()),
            Self::Revoked(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The text of a file. What is no text is no PEM either, and told as such.
fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let failed = |source| Error::Read { path: path.into(), source };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    if found.len() > MAX_BYTES {
        return Err(Error::TooLong { path: path.into(), length: found.len() });
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}
