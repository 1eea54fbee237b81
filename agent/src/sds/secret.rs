//! The secrets as Envoy takes them.

use bytes::Bytes;
use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::DataSource;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use zeroize::Zeroizing;

use crate::identity::Identity;

/// Name of the certificate with its key.
pub const DEFAULT: &str = "default";
/// Name of the roots.
pub const ROOT: &str = "ROOTCA";

/// A secret that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// [`DEFAULT`].
    Default,
    /// [`ROOT`].
    Root,
}

impl Name {
    /// The secret of that name, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            DEFAULT => Some(Self::Default),
            ROOT => Some(Self::Root),
            _ => None,
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => DEFAULT,
            Self::Root => ROOT,
        }
    }

    /// The secret of an identity, in an envelope. Its bytes are wiped when the
    /// last user drops them.
    #[must_use]
    pub fn pack(self, identity: &Identity) -> Any {
        let kind = match self {
            Self::Default => Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(Bytes::copy_from_slice(identity.chain_pem.as_bytes()))),
                private_key: Some(inline(wiped(identity.key_pem.as_bytes().to_vec()))),
                ..TlsCertificate::default()
            }),
            Self::Root => Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(inline(Bytes::copy_from_slice(identity.roots_pem.as_bytes()))),
                ..CertificateValidationContext::default()
            }),
        };
        let secret = Secret { name: self.as_str().to_owned(), r#type: Some(kind) };
        // Reserved in full, so that growing leaves no copy behind.
        let mut encoded = Vec::with_capacity(secret.encoded_len());
        secret.encode_raw(&mut encoded);
        Any { type_url: names::TypeUrl::Secret.as_str().to_owned(), value: wiped(encoded) }
    }
}

fn inline(bytes: Bytes) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn wiped(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}
