//! Private keys.

use rcgen::KeyPair;
use rsa::pkcs8::EncodePrivateKey as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

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

/// SEC1 names its curve inside; the object identifiers differ enough to be searched for.
fn pkcs8_of_sec1(sec1: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let names = |algorithm: &[u8], curve: usize| {
        sec1.windows(curve).any(|window| window == &algorithm[algorithm.len() - curve..])
    };
    if names(&EC_P256, 10) {
        Ok(pkcs8(&EC_P256, sec1))
    } else if names(&EC_P384, 7) {
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
    fn reads_the_older_encodings() {
        // The inner key of PKCS#8 is SEC1 or PKCS#1; without its curve SEC1 says too little.
        let key = PrivateKey::generate(Algorithm::Rsa(2048)).unwrap();
        let PrivateKeyDer::Pkcs8(der) = key.to_der() else { panic!() };
        let inner = &der.secret_pkcs8_der()[26..];
        let pem = rcgen_pem("RSA PRIVATE KEY", inner);
        assert_eq!(PrivateKey::from_pem(&pem).unwrap().public_key_pem(), key.public_key_pem());
    }

    fn rcgen_pem(label: &str, der: &[u8]) -> String {
        const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in der.chunks(3) {
            let word =
                group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for i in 0..4 {
                let sign = SIGNS[(word >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= group.len() { sign as char } else { '=' });
            }
        }
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    #[test]
    fn refuses_what_is_no_key_or_too_short() {
        assert!(matches!(PrivateKey::generate(Algorithm::Rsa(1024)), Err(Error::TooShort(1024))));
        assert!(matches!(PrivateKey::from_pem("hello"), Err(Error::NoKey)));
    }
}
