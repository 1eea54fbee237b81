//! The secrets: what they are called, and what they look like to Envoy.

use std::path::PathBuf;

use bytes::Bytes;
use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::DataSource;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, PrivateKeyProvider, Secret, TlsCertificate,
};
use zeroize::Zeroizing;

use super::key_provider;
use crate::config::sds::KeyProvider;
use crate::identity::files::Paths;
use crate::identity::roots;

/// Name of the certificate with its key.
pub const DEFAULT: &str = "default";
/// Name of the roots.
pub const ROOT: &str = "ROOTCA";
/// Begins the name of a certificate in files: `file-cert:CHAIN~KEY`.
const FILE_PAIR: &str = "file-cert:";
/// Begins the name of roots in a file: `file-root:PATH`.
const FILE_ROOTS: &str = "file-root:";
/// Stands for the roots that the system trusts, in place of a path.
const SYSTEM: &str = "system";
/// Between the two paths of a certificate in files.
const SEPARATOR: char = '~';

/// Whose secret it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The workload's certificate and key.
    Default,
    /// The workload's roots.
    Root,
    /// What is in files.
    Files(Paths),
}

/// A secret that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it was asked for, and as it is answered.
    pub text: String,
    /// Whose it is.
    pub kind: Kind,
}

/// A name that no secret has.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of no known kind.
    #[error(
        "no secret {0:?}: this agent serves {DEFAULT}, {ROOT}, {FILE_PAIR}CHAIN~KEY and {FILE_ROOTS}PATH"
    )]
    Unknown(String),
    /// Not two paths.
    #[error("no secret {0:?}: expected {FILE_PAIR}CHAIN~KEY, each the path of a PEM file")]
    Pair(String),
    /// Not one path.
    #[error("no secret {0:?}: expected {FILE_ROOTS}PATH of a PEM file, or {FILE_ROOTS}{SYSTEM}")]
    Roots(String),
    /// The system's roots are not there.
    #[error("no secret {FILE_ROOTS}{SYSTEM}: this system has none of {}", roots::SYSTEM.join(", "))]
    NoSystem,
}

impl Name {
    /// The secret of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let kind = match text {
            DEFAULT => Kind::Default,
            ROOT => Kind::Root,
            _ => Kind::Files(files(text)?),
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

fn files(text: &str) -> Result<Paths, Error> {
    let owned = || text.to_owned();
    if let Some(rest) = text.strip_prefix(FILE_PAIR) {
        return match rest.split(SEPARATOR).collect::<Vec<_>>()[..] {
            [chain, key] if !chain.is_empty() && !key.is_empty() => {
                Ok(Paths::Pair { chain: PathBuf::from(chain), key: PathBuf::from(key) })
            }
            _ => Err(Error::Pair(owned())),
        };
    }
    match text.strip_prefix(FILE_ROOTS) {
        None => Err(Error::Unknown(owned())),
        Some(SYSTEM) => roots::system().map(|path| Paths::Roots(path.into())).ok_or(Error::NoSystem),
        Some(path) if path.is_empty() || path.contains(SEPARATOR) => Err(Error::Roots(owned())),
        Some(path) => Ok(Paths::Roots(PathBuf::from(path))),
    }
}

/// A certificate with its key, in an envelope. Its bytes are wiped when the
/// last user drops them.
#[must_use]
pub fn certificate(name: &str, chain_pem: &str, key_pem: &str, provider: Option<&KeyProvider>) -> Any {
    let key = inline(wiped(key_pem.as_bytes().to_vec()));
    let mut pair = TlsCertificate {
        certificate_chain: Some(inline(Bytes::copy_from_slice(chain_pem.as_bytes()))),
        ..TlsCertificate::default()
    };
    match provider {
        None => pair.private_key = Some(key),
        Some(provider) => pair.private_key_provider = Some(accelerated(provider, key)),
    }
    pack(name, Type::TlsCertificate(pair))
}

/// Roots with the lists of certificates that they have revoked, in an envelope.
#[must_use]
pub fn roots(name: &str, roots_pem: &str, revoked_pem: Option<&str>) -> Any {
    let text = |pem: &str| Some(inline(Bytes::copy_from_slice(pem.as_bytes())));
    pack(
        name,
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca: text(roots_pem),
            // Not the name of the file: Envoy reads that again only when it is replaced by a move.
            crl: revoked_pem.and_then(text),
            ..CertificateValidationContext::default()
        }),
    )
}

fn pack(name: &str, kind: Type) -> Any {
    let secret = Secret { name: name.to_owned(), r#type: Some(kind) };
    // Reserved in full, so that growing leaves no copy behind.
    let mut encoded = Vec::with_capacity(secret.encoded_len());
    secret.encode_raw(&mut encoded);
    Any { type_url: names::TypeUrl::Secret.as_str().to_owned(), value: wiped(encoded) }
}

fn accelerated(provider: &KeyProvider, key: DataSource) -> PrivateKeyProvider {
    use proto::envoy::extensions::transport_sockets::tls::v3::private_key_provider::ConfigType;

    let method = key_provider::Method { private_key: Some(key), poll_delay: key_provider::delay(provider) };
    let mut encoded = Vec::with_capacity(method.encoded_len());
    method.encode_raw(&mut encoded);
    let config = Any { type_url: provider.kind.type_url().to_owned(), value: wiped(encoded) };
    PrivateKeyProvider {
        provider_name: provider.kind.name().to_owned(),
        fallback: provider.fallback,
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn inline(bytes: Bytes) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn wiped(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_istio() {
        let kind = |text: &str| Name::parse(text).map(|name| name.kind);
        assert_eq!(kind("default").unwrap(), Kind::Default);
        assert_eq!(kind("ROOTCA").unwrap(), Kind::Root);
        let pair = Paths::Pair { chain: "/a/c.pem".into(), key: "k.pem".into() };
        assert_eq!(kind("file-cert:/a/c.pem~k.pem").unwrap(), Kind::Files(pair));
        assert_eq!(kind("file-root:/r.pem").unwrap(), Kind::Files(Paths::Roots("/r.pem".into())));
        for text in [
            "",
            "x",
            "kubernetes://x",
            "file-cert:a",
            "file-cert:a~",
            "file-cert:a~b~c",
            "file-root:",
            "file-root:a~b",
        ] {
            let error = Name::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_key_provider_holds_the_key() {
        use crate::config::sds::ProviderKind;

        let provider = KeyProvider {
            kind: ProviderKind::CryptoMb,
            poll_delay: std::time::Duration::from_millis(2500),
            fallback: true,
        };
        let secret: Secret = certificate("default", "chain", "key", Some(&provider)).unpack().unwrap();
        let Some(Type::TlsCertificate(pair)) = secret.r#type else { panic!() };
        assert!(pair.private_key.is_none());
        let provider = pair.private_key_provider.unwrap();
        assert_eq!((provider.provider_name.as_str(), provider.fallback), ("cryptomb", true));
        let Some(proto::envoy::extensions::transport_sockets::tls::v3::private_key_provider::ConfigType::TypedConfig(config)) =
            provider.config_type
        else {
            panic!()
        };
        let method = key_provider::Method::decode(config.value).unwrap();
        assert_eq!(method.private_key, Some(inline(Bytes::from_static(b"key"))));
        let delay = method.poll_delay.unwrap();
        assert_eq!((delay.seconds, delay.nanos), (2, 500_000_000));
    }
}
