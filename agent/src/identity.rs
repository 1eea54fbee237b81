//! The workload's identity: key, certificate and roots, got from the CA and
//! renewed in time. The key is made here, stays in memory, and leaves it only
//! over Envoy's SDS stream.

pub mod csr_client;
pub mod rotate;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pki::certificate::Certificate;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Key, certificate and roots that belong together.
pub struct Identity {
    /// The chain, PEM, leaf first and root last, as Envoy gets it.
    pub chain_pem: String,
    /// The key of the leaf, PEM.
    pub key_pem: Zeroizing<String>,
    /// The roots, PEM.
    pub roots_pem: String,
    /// When it was asked for.
    pub created: SystemTime,
    /// When the leaf ends.
    pub expires: SystemTime,
    /// Serial number of the leaf.
    pub serial: String,
    /// Identities that the leaf proves.
    pub uris: Vec<String>,
}

/// The identity in force, `None` until the first one is there.
pub type Current = watch::Receiver<Option<Arc<Identity>>>;

/// The CA's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fewer than leaf and root.
    #[error("the CA sent {0} certificates: expected the new one and at least its root")]
    Short(usize),
    /// Not certificates.
    #[error("the CA's answer: {0}")]
    Certificate(#[from] pki::certificate::Error),
    /// Chain and key do not fit.
    #[error("the CA's answer does not fit the key: {0}")]
    Mismatch(#[from] pki::verify::Error),
    /// Already over.
    #[error("the CA sent a certificate that has ended already: compare the clocks")]
    Expired,
}

impl Identity {
    /// Puts together what the CA sent for a key, checking that it fits.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(key: &pki::key::PrivateKey, answer: &[String], created: SystemTime) -> Result<Self, Error> {
        let [_, .., roots] = answer else { return Err(Error::Short(answer.len())) };
        let roots_pem = pki::certificate::join_pem(&[roots]);
        let chain_pem = pki::certificate::join_pem(answer);
        let certificates = Certificate::all_from_pem(&chain_pem)?;
        let leaf = certificates.first().ok_or(Error::Short(0))?;
        if leaf.not_after <= created {
            return Err(Error::Expired);
        }
        // TLS settings are made only from a chain and the key that belong together.
        pki::verify::client_config(&roots_pem, Some((&chain_pem, key)), &[])?;
        Ok(Self {
            key_pem: key.to_pkcs8_pem(),
            created,
            expires: leaf.not_after,
            serial: leaf.serial.clone(),
            uris: leaf.uris.clone(),
            chain_pem,
            roots_pem,
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("uris", &self.uris)
            .field("serial", &self.serial)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pki::csr::Csr;
    use pki::issuer::{Issuer, San};
    use pki::key::{Algorithm, PrivateKey};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn takes_only_what_fits_the_key() {
        let now = SystemTime::now();
        let (issuer, _) = Issuer::self_signed("cluster.local", 24 * HOUR, now).unwrap();
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let other = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let id = "spiffe://cluster.local/ns/default/sa/web";
        let san = San::Spiffe(id.parse().unwrap());
        let answer = issuer.issue(&Csr::of_key(&key).unwrap(), &[san], HOUR, now).unwrap();

        let identity = Identity::new(&key, &answer, now).unwrap();
        assert_eq!(identity.uris, [id]);
        assert_eq!(identity.roots_pem, issuer.root_pem());
        assert!(!format!("{identity:?}").contains("PRIVATE"));

        assert!(matches!(Identity::new(&other, &answer, now), Err(Error::Mismatch(_))));
        assert!(matches!(Identity::new(&key, &answer[..1], now), Err(Error::Short(1))));
        assert!(matches!(Identity::new(&key, &answer, now + 2 * HOUR), Err(Error::Expired)));
        let garbage = ["a".to_owned(), "b".to_owned()];
        assert!(matches!(Identity::new(&key, &garbage, now), Err(Error::Certificate(_))));
    }
}
