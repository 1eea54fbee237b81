//! Private keys.

use rcgen::{KeyPair, PublicKeyData as _};
use rsa::pkcs8::EncodePrivateKey as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::asn1_rs::{Any, FromDer as _, OctetString, Sequence};
use zeroize::Zeroizing;

use crate::pem;

/// What kind of key to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256: the default, made in a fraction of a millisecond.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with that many bits.
    Rsa(usize),
}

/// How a key is encoded in PEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The form of its kind: PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    #[default]
    Traditional,
    /// PKCS#8 (`PRIVATE KEY`).
    Pkcs8,
}

/// Why a key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An RSA key that is too short to be trusted.
    #[error("an RSA key of {0} bits is too short: use 2048 or more")]
    TooShort(usize),
    /// Making it failed.
    #[error("make a private key: {0}")]
    Generate(String),
    /// The text holds no private key.
    #[error("no private key found: expected PEM of the kind PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY")]
    NoKey,
    /// The key is of a kind that is not supported.
    #[error("unsupported private key: {0}")]
    Unsupported(String),
}

/// A private key with its public half.
///
/// It is neither cloned nor printed; the encoded forms it gives out are wiped
/// when they are dropped.
pub struct PrivateKey(KeyPair);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the size is too small or the system gives no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let failed = |error: rcgen::Error| Error::Generate(error.to_string());
        let pair = match algorithm {
            Algorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?,
            Algorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(failed)?,
            Algorithm::Rsa(bits) if bits < 2048 => return Err(Error::TooShort(bits)),
            Algorithm::Rsa(bits) => {
                // ring signs with RSA keys but does not make them.
                let key = rsa::PrivateKey::new(&mut rand::rng(), bits)
                    .map_err(|error| Error::Generate(error.to_string()))?;
                let der = key.to_pkcs8_der().map_err(|error| Error::Generate(error.to_string()))?;
                let der = PrivatePkcs8KeyDer::from(der.as_bytes());
                KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256).map_err(failed)?
            }
        };
        Ok(Self(pair))
    }

    /// Reads a key from PEM: PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// When the text holds no key of a supported kind.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::NoKey)?;
        let unsupported = |error: rcgen::Error| Error::Unsupported(error.to_string());
        let pkcs8 = match &der {
            PrivateKeyDer::Pkcs8(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            PrivateKeyDer::Sec1(key) => pkcs8_of_sec1(key.secret_sec1_der())?,
            PrivateKeyDer::Pkcs1(key) => pkcs8(&RSA_ENCRYPTION, key.secret_pkcs1_der()),
            _ => return Err(Error::NoKey),
        };
        KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.as_slice())).map(Self).map_err(unsupported)
    }

    /// PKCS#8 in PEM (`PRIVATE KEY`).
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// PEM of that format; PKCS#8 for a key whose kind has no other.
    #[must_use]
    pub fn to_pem(&self, format: Format) -> Zeroizing<String> {
        match format {
            Format::Pkcs8 => self.to_pkcs8_pem(),
            Format::Traditional => self.to_traditional_pem().unwrap_or_else(|| self.to_pkcs8_pem()),
        }
    }

    fn to_traditional_pem(&self) -> Option<Zeroizing<String>> {
        let der = Zeroizing::new(self.0.serialize_der());
        let inner = pkcs8_content(&der)?;
        let algorithm = self.0.algorithm();
        if algorithm == &rcgen::PKCS_RSA_SHA256 {
            return Some(pem::encode("RSA PRIVATE KEY", inner));
        }
        let curve = match algorithm {
            kind if kind == &rcgen::PKCS_ECDSA_P256_SHA256 => &EC_P256[EC_P256.len() - P256_ID..],
            kind if kind == &rcgen::PKCS_ECDSA_P384_SHA384 => &EC_P384[EC_P384.len() - P384_ID..],
            _ => return None,
        };
        Some(pem::encode("EC PRIVATE KEY", &sec1(inner, curve, self.0.der_bytes())?))
    }

    /// PKCS#8 in DER, as TLS libraries take it.
    #[must_use]
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// The public half in PEM (`PUBLIC KEY`).
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.0.public_key_pem()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

/// `AlgorithmIdentifier` of rsaEncryption (RFC 8017).
const RSA_ENCRYPTION: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `AlgorithmIdentifier` of a key on P-256 (RFC 5480).
const EC_P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07,
];
/// `AlgorithmIdentifier` of a key on P-384 (RFC 5480).
const EC_P384: [u8; 18] = [
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22,
];

/// Length of the encoded identifier of P-256.
const P256_ID: usize = 10;
/// Length of the encoded identifier of P-384.
const P384_ID: usize = 7;

/// The key inside PKCS#8 (RFC 5958).
fn pkcs8_content(der: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Sequence::from_der_and_then(der, |content| {
        let (rest, _version) = Any::from_der(content)?;
        let (rest, _algorithm) = Any::from_der(rest)?;
        OctetString::from_der(rest)
    })
    .ok()?;
    match outer.into_cow() {
        std::borrow::Cow::Borrowed(bytes) => Some(bytes),
        std::borrow::Cow::Owned(_) => None,
    }
}

/// `ECPrivateKey` (RFC 5915) with the curve and the public key in it, without
/// which readers of the older encoding cannot tell what it is.
fn sec1(inner: &[u8], curve: &[u8], public: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, scalar) = Sequence::from_der_and_then(inner, |content| {
        let (rest, _version) = Any::from_der(content)?;
        OctetString::from_der(rest)
    })
    .ok()?;
    let mut content = Zeroizing::new(Vec::with_capacity(inner.len() + curve.len() + public.len() + 16));
    content.extend([0x02, 0x01, 0x01, 0x04]);
    push_length(&mut content, scalar.as_cow().len());
    content.extend_from_slice(scalar.as_cow());
    content.push(0xa0);
    push_length(&mut content, curve.len());
    content.extend_from_slice(curve);
    // A bit string has a byte that says how many bits are unused.
    let mut bits = vec![0x03];
    push_length(&mut bits, public.len() + 1);
    bits.push(0);
    bits.extend_from_slice(public);
    content.push(0xa1);
    push_length(&mut content, bits.len());
    content.extend_from_slice(&bits);
    let mut der = Zeroizing::new(Vec::with_capacity(content.len() + 4));
    der.push(0x30);
    push_length(&mut der, content.len());
    der.extend_from_slice(&content);
    Some(der)
}

/// SEC1 names its curve inside; the object identifiers differ enough to be searched for.
fn pkcs8_of_sec1(sec1: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let names = |algorithm: &[u8], curve: usize| {
        sec1.windows(curve).any(|window| window == &algorithm[algorithm.len() - curve..])
    };
    if names(&EC_P256, P256_ID) {
        Ok(pkcs8(&EC_P256, sec1))
    } else if names(&EC_P384, P384_ID) {
        Ok(pkcs8(&EC_P384, sec1))
    } else {
        Err(Error::Unsupported("an elliptic curve other than P-256 and P-384".into()))
    }
}

/// `PrivateKeyInfo` around an older encoding (RFC 5958).
fn pkcs8(algorithm: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut content = Zeroizing::new(vec![0x02, 0x01, 0x00]);
    content.extend_from_slice(algorithm);
    content.push(0x04);
    push_length(&mut content, key.len());
    content.extend_from_slice(key);
    let mut der = Zeroizing::new(vec![0x30]);
    push_length(&mut der, content.len());
    der.extend_from_slice(&content);
    der
}

fn push_length(der: &mut Vec<u8>, length: usize) {
    // Keys are far shorter than 64 KiB, so three bytes always do.
    let [.., high, low] = length.to_be_bytes();
    match (high, low) {
        (0, 0..0x80) => der.push(low),
        (0, _) => der.extend([0x81, low]),
        _ => der.extend([0x82, high, low]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_stay_secret() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa(2048)] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let again = PrivateKey::from_pem(&key.to_pkcs8_pem()).unwrap();
            assert_eq!(again.public_key_pem(), key.public_key_pem(), "{algorithm:?}");
            assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        }
    }

    #[test]
    fn both_encodings_are_read_again() {
        for (algorithm, label) in [
            (Algorithm::EcdsaP256, "EC PRIVATE KEY"),
            (Algorithm::EcdsaP384, "EC PRIVATE KEY"),
            (Algorithm::Rsa(2048), "RSA PRIVATE KEY"),
        ] {
            let key = PrivateKey::generate(algorithm).unwrap();
            for (format, label) in [(Format::Traditional, label), (Format::Pkcs8, "PRIVATE KEY")] {
                let pem = key.to_pem(format);
                assert!(pem.starts_with(&format!("-----BEGIN {label}-----\n")), "{algorithm:?} {format:?}");
                assert!(pem.ends_with(&format!("\n-----END {label}-----\n")), "{algorithm:?} {format:?}");
                let again = PrivateKey::from_pem(&pem).unwrap();
                assert_eq!(again.public_key_pem(), key.public_key_pem(), "{algorithm:?} {format:?}");
                // Encoded in the other form first, it is the same.
                assert_eq!(again.to_pem(Format::Traditional), key.to_pem(Format::Traditional));
            }
        }
    }

    #[test]
    fn refuses_what_is_no_key_or_too_short() {
        assert!(matches!(PrivateKey::generate(Algorithm::Rsa(1024)), Err(Error::TooShort(1024))));
        assert!(matches!(PrivateKey::from_pem("hello"), Err(Error::NoKey)));
    }
}
