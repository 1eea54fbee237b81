//! A certificate authority: a signing key with its certificate, and what it
//! issues. The fields of the certificates are those that Istio's CA writes.

use std::time::{Duration, SystemTime};

use names::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::certificate::{self, Certificate};
use crate::csr::Csr;
use crate::key::{self, Algorithm, PrivateKey};

/// Certificates are valid a little before they are issued, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(120);
/// Longest common name that X.509 allows.
const MAX_COMMON_NAME: usize = 64;

/// Why there is no authority, or why it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate file is unusable.
    #[error("{file}: {source}")]
    Certificate {
        /// Which one.
        file: &'static str,
        /// What is wrong.
        source: certificate::Error,
    },
    /// The key is unusable.
    #[error("ca-key.pem: {0}")]
    Key(#[from] key::Error),
    /// The signing certificate may not sign.
    #[error("ca-cert.pem is not a CA certificate (basic constraints say CA:FALSE)")]
    NotCa,
    /// Key and certificate are of different pairs.
    #[error("ca-key.pem is not the key of ca-cert.pem")]
    KeyMismatch,
    /// No path from the signing certificate to a root.
    #[error("ca-cert.pem does not verify against root-cert.pem through cert-chain.pem")]
    NoPath,
    /// The signing certificate is over.
    #[error("the signing certificate has expired")]
    Expired,
    /// Signing failed.
    #[error("sign a certificate: {0}")]
    Sign(String),
}

/// Text of the four files of a CA.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The signing certificate.
    pub cert: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The signing certificate and those between it and the root; empty for a root.
    pub chain: &'a str,
    /// The roots.
    pub root: &'a str,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A workload.
    Spiffe(SpiffeId),
    /// A server.
    Dns(String),
}

impl San {
    fn text(&self) -> String {
        match self {
            Self::Spiffe(id) => id.to_string(),
            Self::Dns(name) => name.clone(),
        }
    }
}

/// A signing key with its certificate, its chain and its roots.
pub struct Issuer {
    signer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: Certificate,
    /// Each certificate between leaf and root, as PEM.
    chain: Vec<String>,
    root: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("serial", &self.certificate.serial).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Makes a root (ECDSA P-256) for that organization; returns its key as
    /// PEM too, to be kept.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn self_signed(
        organization: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(Self, Zeroizing<String>), Error> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let mut params = params(now, now + ttl)?;
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(key.pair()).map_err(|error| Error::Sign(error.to_string()))?.pem();
        let pem = key.to_pkcs8_pem();
        let issuer = Self::load(&Material { cert: &root, key: &pem, chain: "", root: &root }, now)?;
        Ok((issuer, pem))
    }

    /// Loads an authority from its files and checks that they fit together.
    ///
    /// # Errors
    /// What does not fit.
    pub fn load(material: &Material<'_>, now: SystemTime) -> Result<Self, Error> {
        let read = |file, text| {
            Certificate::all_from_pem(text).map_err(|source| Error::Certificate { file, source })
        };
        let signing = read("ca-cert.pem", material.cert)?;
        let roots = read("root-cert.pem", material.root)?;
        let chain = if material.chain.trim().is_empty() {
            Vec::new()
        } else {
            read("cert-chain.pem", material.chain)?
        };
        // At least one: `all_from_pem` returns no empty list.
        let certificate = signing.into_iter().next().ok_or(Error::NotCa)?;
        if !certificate.is_ca {
            return Err(Error::NotCa);
        }
        if certificate.not_after <= now {
            return Err(Error::Expired);
        }
        let key = PrivateKey::from_pem(material.key)?;
        check_key(&certificate, &key)?;
        check_path(&certificate, &chain, &roots)?;
        let sign = |error: rcgen::Error| Error::Sign(error.to_string());
        let pair = rcgen::KeyPair::try_from(&key.to_der()).map_err(sign)?;
        let signer = rcgen::Issuer::from_ca_cert_der(certificate.der(), pair).map_err(sign)?;
        Ok(Self {
            signer,
            certificate,
            chain: split_pem(material.chain),
            root: certificate::join_pem(&[material.root]),
        })
    }

    /// The roots, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// Until when it can sign.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.certificate.not_after
    }

    /// Issues a certificate for the request's key and for `sans`; returns the
    /// leaf, each certificate between it and the root, and last the roots.
    ///
    /// The lifetime is cut to that of the signing certificate.
    ///
    /// # Errors
    /// When the signing certificate has expired or a name cannot be written.
    pub fn issue(
        &self,
        csr: &Csr,
        sans: &[San],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        if self.certificate.not_after <= now {
            return Err(Error::Expired);
        }
        let sign = |error: rcgen::Error| Error::Sign(error.to_string());
        let not_after = now.checked_add(ttl).unwrap_or(self.certificate.not_after);
        let mut params = params(now - BACKDATE, not_after.min(self.certificate.not_after))?;
        params.subject_alt_names = sans
            .iter()
            .map(|san| {
                let text = san.text().try_into().map_err(sign)?;
                Ok(match san {
                    San::Spiffe(_) => SanType::URI(text),
                    San::Dns(_) => SanType::DnsName(text),
                })
            })
            .collect::<Result<_, Error>>()?;
        let common_name = sans.first().map(San::text).filter(|name| name.len() <= MAX_COMMON_NAME);
        if let (true, Some(name)) = (csr.has_common_name, common_name) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&csr.public_key, &self.signer).map_err(sign)?;
        let mut all = vec![certificate::join_pem(&[leaf.pem()])];
        all.extend(self.chain.iter().cloned());
        all.push(self.root.clone());
        Ok(all)
    }
}

fn params(not_before: SystemTime, not_after: SystemTime) -> Result<CertificateParams, Error> {
    let time = |time: SystemTime| {
        // X.509 has no fractions of a second.
        OffsetDateTime::from(time).replace_nanosecond(0).map_err(|error| Error::Sign(error.to_string()))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = time(not_before)?;
    params.not_after = time(not_after)?;
    // 128 random bits; the first bit is clear so that the number stays positive.
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn check_key(certificate: &Certificate, key: &PrivateKey) -> Result<(), Error> {
    use rcgen::PublicKeyData as _;
    let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|_| Error::NotCa)?;
    if parsed.public_key().raw == key.pair().subject_public_key_info() {
        Ok(())
    } else {
        Err(Error::KeyMismatch)
    }
}

/// Walks from the signing certificate to a root, a signature at each step.
fn check_path(start: &Certificate, chain: &[Certificate], roots: &[Certificate]) -> Result<(), Error> {
    let mut current = start;
    // A chain that leads in a circle ends with its length.
    for _ in 0..=chain.len() {
        if roots.iter().any(|root| root == current || is_signed_by(current, root)) {
            return Ok(());
        }
        let next = chain.iter().find(|next| *next != current && is_signed_by(current, next));
        current = next.ok_or(Error::NoPath)?;
    }
    Err(Error::NoPath)
}

fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let (Ok((_, certificate)), Ok((_, signer))) =
        (X509Certificate::from_der(certificate.der()), X509Certificate::from_der(issuer.der()))
    else {
        return false;
    };
    issuer.is_ca
        && certificate.issuer() == signer.subject()
        && certificate.verify_signature(Some(signer.public_key())).is_ok()
}

/// The certificates of a PEM text, each with its own line end.
fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|part| {
            part.find("-----BEGIN CERTIFICATE-----").map(|start| format!("{}\n", &part[start..]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn workload() -> (San, Csr) {
        let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = Csr::parse(&crate::csr::request(&key, &id).unwrap()).unwrap();
        (San::Spiffe(id), csr)
    }

    #[test]
    fn issues_for_the_given_identity_only() {
        let now = SystemTime::now();
        let (issuer, _) = Issuer::self_signed("cluster.local", 24 * HOUR, now).unwrap();
        let (_, csr) = workload();
        let other = San::Spiffe("spiffe://cluster.local/ns/x/sa/y".parse().unwrap());
        let chain = issuer.issue(&csr, &[other], HOUR, now).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], issuer.root_pem());
        let leaf = &Certificate::all_from_pem(&chain[0]).unwrap()[0];
        assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/x/sa/y"]);
        assert!(!leaf.is_ca);
        let (_, parsed) = X509Certificate::from_der(leaf.der()).unwrap();
        assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
        assert!(parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(parsed.basic_constraints().unwrap().unwrap().critical);
        let age = now.duration_since(leaf.not_before).unwrap().as_secs();
        assert!((119..=121).contains(&age), "{age}");
    }

    #[test]
    fn a_leaf_never_outlives_its_signer() {
        let now = SystemTime::now();
        let (issuer, _) = Issuer::self_signed("cluster.local", HOUR, now).unwrap();
        let (san, csr) = workload();
        let chain = issuer.issue(&csr, &[san], 48 * HOUR, now).unwrap();
        let leaf = &Certificate::all_from_pem(&chain[0]).unwrap()[0];
        assert_eq!(leaf.not_after, issuer.not_after());
        let (san, csr) = workload();
        assert!(matches!(issuer.issue(&csr, &[san], HOUR, now + 2 * HOUR), Err(Error::Expired)));
    }

    #[test]
    fn files_must_fit_together() {
        let now = SystemTime::now();
        let (one, one_key) = Issuer::self_signed("one", HOUR, now).unwrap();
        let (two, _) = Issuer::self_signed("two", HOUR, now).unwrap();
        let load =
            |cert: &str, key: &str, root: &str| Issuer::load(&Material { cert, key, chain: "", root }, now);
        assert!(load(one.root_pem(), &one_key, one.root_pem()).is_ok());
        assert!(matches!(load(two.root_pem(), &one_key, two.root_pem()), Err(Error::KeyMismatch)));
        assert!(matches!(load(one.root_pem(), &one_key, two.root_pem()), Err(Error::NoPath)));
        let (san, csr) = workload();
        let leaf = &one.issue(&csr, &[san], HOUR, now).unwrap()[0];
        assert!(matches!(load(leaf, &one_key, one.root_pem()), Err(Error::NotCa)));
        assert!(load("", &one_key, one.root_pem()).unwrap_err().to_string().starts_with("ca-cert.pem: "));
    }
}
