//! The workload's identity: key, certificate and roots, got from the CA and
//! renewed in time. The key is made here, stays in memory, and leaves it only
//! over Envoy's SDS stream, and in files when the user asks for them.
//!
//! [`rotate`] publishes what comes from the CA; [`roots`] adds the roots that
//! come from elsewhere and publishes what everybody reads; [`output`] writes it
//! to files.

pub mod csr_client;
pub mod files;
pub mod output;
pub mod roots;
pub mod rotate;
pub mod token;
pub mod told;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pki::certificate::Certificate;
use pki::key::{Format, PrivateKey};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Key, certificate and roots that belong together.
pub struct Identity {
    /// The chain, PEM, leaf first and root last, as Envoy gets it.
    pub chain_pem: String,
    /// The key of the leaf, PEM; shared by all values for the same certificate.
    pub key_pem: Arc<Zeroizing<String>>,
    /// The roots that are trusted, PEM.
    pub roots_pem: String,
    /// When it was asked for.
    pub created: SystemTime,
    /// When the leaf ends.
    pub expires: SystemTime,
    /// When the first of the roots ends that has not ended yet.
    pub roots_expire: Option<SystemTime>,
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
    pub fn new(
        key: &PrivateKey,
        format: Format,
        answer: &[String],
        created: SystemTime,
    ) -> Result<Self, Error> {
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
            key_pem: Arc::new(key.to_pem(format)),
            created,
            expires: leaf.not_after,
            roots_expire: first_end(&roots_pem, created),
            serial: leaf.serial.clone(),
            uris: leaf.uris.clone(),
            chain_pem,
            roots_pem,
        })
    }

    /// The same certificate with other roots.
    #[must_use]
    pub fn with_roots(&self, roots_pem: String) -> Self {
        Self {
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
            roots_expire: first_end(&roots_pem, self.created),
            roots_pem,
            created: self.created,
            expires: self.expires,
            serial: self.serial.clone(),
            uris: self.uris.clone(),
        }
    }
}

/// When the first root ends that has not ended yet; an old one that nobody has
/// removed is no reason for an alarm.
pub(crate) fn first_end(roots_pem: &str, now: SystemTime) -> Option<SystemTime> {
    let all = Certificate::all_from_pem(roots_pem).ok()?;
    all.iter().map(|root| root.not_after).filter(|end| *end > now).min()
}

/// A time as logs and errors have it.
pub(crate) fn stamp(time: SystemTime) -> String {
    // Times that no calendar holds do not come from any issuer.
    let date = i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = date.and_then(|date| date.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| "an unknown time".into())
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
    use pki::key::Algorithm;

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

        let identity = Identity::new(&key, Format::Traditional, &answer, now).unwrap();
        assert_eq!(identity.uris, [id]);
        assert_eq!(identity.roots_pem, issuer.root_pem());
        assert!(!format!("{identity:?}").contains("PRIVATE"));

        assert!(matches!(Identity::new(&other, Format::Traditional, &answer, now), Err(Error::Mismatch(_))));
        assert!(matches!(Identity::new(&key, Format::Traditional, &answer[..1], now), Err(Error::Short(1))));
        assert!(matches!(
            Identity::new(&key, Format::Traditional, &answer, now + 2 * HOUR),
            Err(Error::Expired)
        ));
        let garbage = ["a".to_owned(), "b".to_owned()];
        assert!(matches!(
            Identity::new(&key, Format::Traditional, &garbage, now),
            Err(Error::Certificate(_))
        ));
    }
}
