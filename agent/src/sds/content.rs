//! What a secret holds at a moment, shared with those it comes from.

use std::sync::Arc;

use proto::Any;
use sha2::{Digest as _, Sha256};

use super::secret;
use crate::config::sds::KeyProvider;
use crate::identity::Identity;
use crate::identity::files::Material;

/// Bytes of a version; enough to tell contents apart.
const VERSION: usize = 12;

/// Tells contents of one secret apart. Made of what is public of it.
pub(super) type Version = String;

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Identity(Arc<Identity>),
    Files(Arc<Material>),
}

/// The content of a secret.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Certificate(Held),
    Roots {
        held: Held,
        /// Lists of revoked certificates.
        revoked: Option<Arc<Material>>,
    },
}

/// The content as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) version: Version,
    pub(super) content: Content,
    /// The lists of revoked certificates go along.
    with_revoked: bool,
}

impl Held {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Identity(one), Self::Identity(other)) => Arc::ptr_eq(one, other),
            (Self::Files(one), Self::Files(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Chain and key.
    fn pair(&self) -> (&str, &str) {
        match self {
            Self::Identity(identity) => (&identity.chain_pem, &identity.key_pem),
            Self::Files(material) => match &**material {
                Material::Pair(pair) => (&pair.chain_pem, &pair.key_pem),
                Material::Roots(_) | Material::Revoked(_) => ("", ""),
            },
        }
    }

    fn roots(&self) -> &str {
        match self {
            Self::Identity(identity) => &identity.roots_pem,
            Self::Files(material) => match &**material {
                Material::Roots(pem) => pem,
                Material::Pair(_) | Material::Revoked(_) => "",
            },
        }
    }
}

fn lists(material: &Material) -> &str {
    match material {
        Material::Revoked(pem) => pem,
        Material::Pair(_) | Material::Roots(_) => "",
    }
}

impl Content {
    /// Whether nothing is new; equal content elsewhere counts as new.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Certificate(one), Self::Certificate(other)) => one.is_same(other),
            (Self::Roots { held: one, revoked: lists }, Self::Roots { held: other, revoked: others }) => {
                one.is_same(other) && lists.as_ref().map(Arc::as_ptr) == others.as_ref().map(Arc::as_ptr)
            }
            _ => false,
        }
    }

    /// Serial number of a certificate.
    pub(super) fn serial(&self) -> Option<&str> {
        match self {
            Self::Certificate(Held::Identity(identity)) => Some(&identity.serial),
            Self::Certificate(Held::Files(material)) => match &**material {
                Material::Pair(pair) => Some(&pair.leaf.serial),
                Material::Roots(_) | Material::Revoked(_) => None,
            },
            Self::Roots { .. } => None,
        }
    }
}

impl Newest {
    pub(super) fn new(content: Content) -> Self {
        let mut digest = Sha256::new();
        let mut with_revoked = false;
        match &content {
            // The chain holds the public half of the key.
            Content::Certificate(held) => digest.update(held.pair().0),
            Content::Roots { held, revoked } => {
                digest.update(held.roots());
                if let Some(revoked) = revoked {
                    // Roots of others in a file would accept nothing with lists that are not theirs.
                    let is_own = matches!(held, Held::Identity(_));
                    with_revoked = is_own || pki::crl::is_of(lists(revoked), held.roots());
                    if with_revoked {
                        digest.update(lists(revoked));
                    }
                }
            }
        }
        let version = digest.finalize()[..VERSION].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { version, content, with_revoked }
    }

    /// In an envelope.
    pub(super) fn pack(&self, name: &str, key_provider: Option<&KeyProvider>) -> Any {
        match &self.content {
            Content::Certificate(held) => {
                let (chain, key) = held.pair();
                secret::certificate(name, chain, key, key_provider)
            }
            Content::Roots { held, revoked } => {
                let revoked = revoked.as_deref().filter(|_| self.with_revoked).map(lists);
                secret::roots(name, held.roots(), revoked)
            }
        }
    }
}
