//! A certificate and its key as other programs write them to files, of any
//! kind that a proxy can use, also of kinds that nothing here signs with.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::{self, Certificate};
use crate::key::{self, PrivateKey};

/// Why two texts are no pair.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain cannot be read.
    #[error("certificate chain: {0}")]
    Chain(#[from] certificate::Error),
    /// The key cannot be read.
    #[error("key: {0}")]
    Key(key::Error),
    /// They are of different pairs.
    #[error("the key is not that of the certificate")]
    Mismatch,
}

/// Reads the first certificate of a chain and makes sure that the key is its.
///
/// # Errors
/// Why they are no pair.
pub fn check(chain_pem: &str, key_pem: &str) -> Result<Certificate, Error> {
    let mut chain = Certificate::all_from_pem(chain_pem)?;
    let leaf = chain.swap_remove(0);
    let belongs = match PrivateKey::from_pem(key_pem) {
        Ok(key) => has_public_key(&leaf, &key),
        // A curve or a size that is not supported here may be by the proxy.
        Err(key::Error::Unsupported(_)) => holds_public_key(&leaf, key_pem),
        Err(error) => return Err(Error::Key(error)),
    };
    if belongs { Ok(leaf) } else { Err(Error::Mismatch) }
}

fn has_public_key(leaf: &Certificate, key: &PrivateKey) -> bool {
    let Ok(der) = SubjectPublicKeyInfoDer::from_pem_slice(key.public_key_pem().as_bytes()) else {
        return false;
    };
    let Ok((_, of_key)) = SubjectPublicKeyInfo::from_der(&der) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf.der()) else { return false };
    // Without the algorithm, whose parameters are written in several ways.
    parsed.public_key().subject_public_key.data == of_key.subject_public_key.data
}

/// Whether the public key of the leaf is part of the private key, as it is of
/// every RSA key, and of EC keys that name it.
fn holds_public_key(leaf: &Certificate, key_pem: &str) -> bool {
    let Ok(key) = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf.der()) else { return false };
    let public = match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => key.modulus.to_vec(),
        Ok(PublicKey::EC(point)) => point.data().to_vec(),
        _ => return false,
    };
    !public.is_empty() && key.secret_der().windows(public.len()).any(|window| window == public)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::csr::Csr;
    use crate::issuer::{Issuer, San};
    use crate::key::Algorithm;

    #[test]
    fn a_pair_belongs_together() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let (issuer, _) = Issuer::self_signed("cluster.local", 24 * hour, now).unwrap();
        let other = PrivateKey::generate(Algorithm::EcdsaP256).unwrap().to_pkcs8_pem();
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa(2048)] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let san = San::Spiffe("spiffe://cluster.local/ns/a/sa/b".parse().unwrap());
            let chain = issuer.issue(&Csr::of_key(&key).unwrap(), &[san], hour, now).unwrap();
            let chain = certificate::join_pem(&chain);
            let pem = key.to_pkcs8_pem();
            assert_eq!(check(&chain, &pem).unwrap().uris, ["spiffe://cluster.local/ns/a/sa/b"]);
            assert!(holds_public_key(&check(&chain, &pem).unwrap(), &pem), "{algorithm:?}");
            assert!(!holds_public_key(&check(&chain, &pem).unwrap(), &other));
            assert!(matches!(check(&chain, &other), Err(Error::Mismatch)));
            assert!(matches!(check(&chain, &chain), Err(Error::Key(_))));
            assert!(matches!(check(&pem, &pem), Err(Error::Chain(_))));
        }
    }

    #[test]
    fn a_curve_that_nothing_here_signs_with_is_compared_too() {
        let (chain, key) =
            (include_str!("../testdata/p521-cert.pem"), include_str!("../testdata/p521-key.pem"));
        assert!(matches!(PrivateKey::from_pem(key), Err(key::Error::Unsupported(_))));
        assert!(check(chain, key).is_ok());
        let other = key.replace('A', "B");
        assert!(check(chain, &other).is_err());
    }
}
