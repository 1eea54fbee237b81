//! Certificates: what the mesh needs to know of them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use names::SpiffeId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Why bytes are no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text holds no certificate.
    #[error("no certificate found: expected PEM of the kind CERTIFICATE")]
    None,
    /// One of the certificates cannot be read.
    #[error("certificate {number}: {why}")]
    Bad {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
}

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// URIs of the subject alternative name.
    pub uris: Vec<String>,
    /// DNS names of the subject alternative name.
    pub dns_names: Vec<String>,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// Serial number, hexadecimal.
    pub serial: String,
}

impl Certificate {
    /// Reads one certificate from DER.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let bad = |why: String| Error::Bad { number: 1, why };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
        let names = parsed.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(Self {
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            uris,
            dns_names,
            is_ca: parsed.is_ca(),
            serial: format!("{:x}", parsed.serial),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads all certificates of a PEM text; there is at least one.
    ///
    /// # Errors
    /// When there is none or one of them cannot be read.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, Error> {
        let mut all = Vec::new();
        for (index, item) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let bad = |why: String| Error::Bad { number: index + 1, why };
            let der = item.map_err(|error| bad(error.to_string()))?;
            all.push(Self::from_der(&der).map_err(|error| match error {
                Error::Bad { why, .. } => bad(why),
                Error::None => Error::None,
            })?);
        }
        if all.is_empty() { Err(Error::None) } else { Ok(all) }
    }

    /// The SPIFFE identities it proves.
    #[must_use]
    pub fn spiffe_ids(&self) -> Vec<SpiffeId> {
        self.uris.iter().filter_map(|uri| uri.parse().ok()).collect()
    }

    /// The encoded certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// The certificates of a PEM text, each as a PEM text of its own with one line
/// end after it. What is no certificate is left out.
#[must_use]
pub fn blocks(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter_map(|part| {
            let start = part.find("-----BEGIN CERTIFICATE-----")?;
            // Written anew, so that spaces and line ends make no difference.
            let lines = part[start..].lines().map(str::trim).filter(|line| !line.is_empty());
            let text: String = lines.flat_map(|line| [line, "\n"]).collect();
            Certificate::all_from_pem(&text).is_ok().then_some(text)
        })
        .collect()
}

/// Joins PEM texts, each beginning on a line of its own.
#[must_use]
pub fn join_pem<S: AsRef<str>>(texts: &[S]) -> String {
    let mut joined = String::new();
    for text in texts.iter().map(AsRef::as_ref).filter(|text| !text.is_empty()) {
        joined.push_str(text);
        if !text.ends_with('\n') {
            joined.push('\n');
        }
    }
    joined
}

/// The certificates of several bundles, each once, in order of their first
/// appearance, as PEM texts of one certificate each.
///
/// # Errors
/// When a bundle holds something that is no certificate.
pub fn merge_roots(bundles: &[&str]) -> Result<Vec<Certificate>, Error> {
    let mut seen = BTreeSet::new();
    let mut merged = Vec::new();
    for bundle in bundles {
        for certificate in Certificate::all_from_pem(bundle)? {
            if seen.insert(certificate.der.to_vec()) {
                merged.push(certificate);
            }
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_with_line_ends() {
        assert_eq!(join_pem(&["a", "b\n", "", "c"]), "a\nb\nc\n");
    }

    #[test]
    fn blocks_are_alike_however_they_are_written() {
        let now = SystemTime::now();
        let (issuer, _) = crate::issuer::Issuer::self_signed("a", Duration::from_secs(60), now).unwrap();
        let root = issuer.root_pem();
        let noisy = format!(
            "# note\r\n{}\n\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----tail",
            root.replace('\n', "\r\n")
        );
        assert_eq!(blocks(&noisy), [root]);
        assert_eq!(blocks(&join_pem(&[root, "", root.trim_end()])), [root, root]);
        assert!(blocks("nothing -----END CERTIFICATE-----").is_empty());
    }

    #[test]
    fn says_what_is_no_certificate() {
        assert!(matches!(Certificate::all_from_pem("x"), Err(Error::None)));
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Certificate::all_from_pem(pem), Err(Error::Bad { number: 1, .. })));
    }
}
