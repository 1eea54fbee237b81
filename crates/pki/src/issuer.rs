//! A certificate authority: a signing key with its certificate, and what it
//! issues. The fields of the certificates are those that Istio's CA writes.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use names::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::certificate::{self, Certificate};
use crate::csr::Csr;
use crate::key::{self, Algorithm, PrivateKey};
use crate::{path, verify};

/// Certificates are valid a little before they are issued, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(120);
/// Longest common name that X.509 allows.
const MAX_COMMON_NAME: usize = 64;
/// Whom the certificate is for that is tried at load; nobody gets to see it.
const TEST_ID: &str = "spiffe://cluster.local/ns/istio-system/sa/test";

/// Why there is no authority, or why it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate file cannot be read.
    #[error("{file}: {why}")]
    Certificate {
        /// Which one.
        file: &'static str,
        /// What is wrong.
        why: certificate::Error,
    },
    /// The key cannot be read.
    #[error("{file}: {why}")]
    Key {
        /// Its file.
        file: &'static str,
        /// What is wrong.
        why: key::Error,
    },
    /// A certificate between leaf and root does not do.
    #[error("{file}: certificate {number} {why}")]
    Unusable {
        /// Where it is.
        file: &'static str,
        /// Which one in the file, counted from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// Key and certificate are of different pairs.
    #[error("{key} is not the key of {cert}")]
    KeyMismatch {
        /// File of the key.
        key: &'static str,
        /// File of the certificate.
        cert: &'static str,
    },
    /// No path from the signing certificate to a root.
    #[error(
        "{cert} does not verify against {root} through cert-chain.pem: a certificate between them is missing or of another CA"
    )]
    NoPath {
        /// File of the signing certificate.
        cert: &'static str,
        /// File of the roots.
        root: &'static str,
    },
    /// The files look right, and yet peers would refuse.
    #[error("a certificate signed by {cert} does not verify with the roots of {root}: {why}")]
    Refused {
        /// File of the signing certificate.
        cert: &'static str,
        /// File of the roots.
        root: &'static str,
        /// What a peer says.
        why: verify::Error,
    },
    /// The signing certificate is over.
    #[error("the signing certificate or one above it has expired")]
    Expired,
    /// Signing failed.
    #[error("sign a certificate: {0}")]
    Sign(String),
}

/// A file of PEM.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// Its name, for errors.
    pub file: &'static str,
    /// What is in it.
    pub text: &'a str,
}

impl std::fmt::Debug for Pem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The four files of a CA.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The signing certificate.
    pub cert: Pem<'a>,
    /// Its key.
    pub key: Pem<'a>,
    /// The certificates between the leaf and the root, the signing one among
    /// them or not; empty for a root.
    pub chain: Pem<'a>,
    /// The roots.
    pub root: Pem<'a>,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A workload.
    Spiffe(SpiffeId),
    /// A server by its name.
    Dns(String),
    /// A server by its address.
    Ip(IpAddr),
}

impl std::fmt::Display for San {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// A signing key with its certificate, its chain and its roots.
pub struct Issuer {
    signer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: Certificate,
    /// Until when the signing certificate and all above it are valid.
    not_after: SystemTime,
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
        let key = PrivateKey::generate(Algorithm::EcdsaP256).map_err(|why| Error::Sign(why.to_string()))?;
        let pem = key.to_pkcs8_pem();
        Ok((Self::self_signed_by(key, organization, ttl, now)?, pem))
    }

    /// Makes a root for a key that is there already.
    ///
    /// # Errors
    /// When it cannot sign with that key.
    pub fn self_signed_by(
        key: PrivateKey,
        organization: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let mut params = params(now - BACKDATE, now + ttl)?;
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(key.pair()).map_err(|error| Error::Sign(error.to_string()))?.pem();
        let pem = key.to_pkcs8_pem();
        drop(key);
        let root = Pem { file: "root-cert.pem", text: &root };
        let key = Pem { file: "ca-key.pem", text: &pem };
        let chain = Pem { file: "cert-chain.pem", text: "" };
        Self::load(&Material { cert: root, key, chain, root }, now)
    }

    /// Loads an authority from its files and checks that what it will sign
    /// verifies: with exactly the chain and the roots that peers will have.
    ///
    /// # Errors
    /// What does not fit, by file.
    pub fn load(material: &Material<'_>, now: SystemTime) -> Result<Self, Error> {
        let read = |pem: Pem<'_>| {
            Certificate::all_from_pem(pem.text).map_err(|why| Error::Certificate { file: pem.file, why })
        };
        let Material { cert, key, chain, root } = *material;
        let signing = read(cert)?;
        let roots = read(root)?;
        let between = if chain.text.trim().is_empty() { Vec::new() } else { read(chain)? };
        let private = PrivateKey::from_pem(key.text).map_err(|why| Error::Key { file: key.file, why })?;
        // At least one: `all_from_pem` returns no empty list.
        let start = path::steps(cert.file, &signing)[0];
        check_key(start.certificate, &private)
            .map_err(|()| Error::KeyMismatch { key: key.file, cert: cert.file })?;
        let steps = path::steps(chain.file, &between);
        let not_after = path::check(start, &steps, &path::steps(root.file, &roots), now)?;

        let certificate = start.certificate.clone();
        let mut sent = certificate::blocks(chain.text);
        if !roots.contains(&certificate) && !between.contains(&certificate) {
            // Peers know the roots only, so they must be sent it.
            sent.splice(0..0, certificate::blocks(cert.text).into_iter().take(1));
        }
        let sign = |error: rcgen::Error| Error::Sign(error.to_string());
        let pair = rcgen::KeyPair::try_from(&private.to_der()).map_err(sign)?;
        let signer = rcgen::Issuer::from_ca_cert_der(certificate.der(), pair).map_err(sign)?;
        let issuer =
            Self { signer, certificate, not_after, chain: sent, root: certificate::join_pem(&[root.text]) };
        issuer.try_leaf(now)?.map_err(|why| Error::Refused { cert: cert.file, root: root.file, why })?;
        Ok(issuer)
    }

    /// Issues a certificate and looks at it as a peer does.
    fn try_leaf(&self, now: SystemTime) -> Result<Result<(), verify::Error>, Error> {
        let sign = |error: &dyn std::fmt::Display| Error::Sign(error.to_string());
        let key = PrivateKey::generate(Algorithm::EcdsaP256).map_err(|error| sign(&error))?;
        let csr = Csr::of_key(&key).map_err(|error| sign(&error))?;
        let id: SpiffeId = TEST_ID.parse().map_err(|error| sign(&error))?;
        let sent = self.issue(&csr, &[San::Spiffe(id)], Duration::from_secs(3600), now)?;
        // The roots come last; a peer does not trust what it was sent.
        let chain = sent[..sent.len() - 1].concat();
        Ok(verify::check_chain(&chain, &self.root, now))
    }

    /// The roots, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// The signing certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificates that are sent between a leaf and the roots, PEM.
    #[must_use]
    pub fn chain(&self) -> &[String] {
        &self.chain
    }

    /// Until when it can sign.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Issues a certificate for the request's key and for `sans`; returns the
    /// leaf, each certificate between it and the root, and last the roots.
    ///
    /// The lifetime is cut to that of the signing certificate and those above it.
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
        if self.not_after <= now {
            return Err(Error::Expired);
        }
        let sign = |error: rcgen::Error| Error::Sign(error.to_string());
        let not_after = now.checked_add(ttl).unwrap_or(self.not_after);
        let mut params = params(now - BACKDATE, not_after.min(self.not_after))?;
        params.subject_alt_names = sans
            .iter()
            .map(|san| {
                Ok(match san {
                    San::Spiffe(id) => SanType::URI(id.to_string().try_into().map_err(sign)?),
                    San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(sign)?),
                    San::Ip(address) => SanType::IpAddress(*address),
                })
            })
            .collect::<Result<_, Error>>()?;
        let common_name = sans.first().map(San::to_string).filter(|name| name.len() <= MAX_COMMON_NAME);
        if let (true, Some(name)) = (csr.has_common_name, common_name) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Other keys cannot do it, and some who look at the certificate mind (RFC 8813).
        if csr.public_key.algorithm() == &rcgen::PKCS_RSA_SHA256 {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
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

fn check_key(certificate: &Certificate, key: &PrivateKey) -> Result<(), ()> {
    let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|_| ())?;
    if parsed.public_key().raw == key.pair().subject_public_key_info() { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests;
