//! Lists of revoked certificates.

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::certificate::Certificate;

/// Why a text holds no lists.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is none.
    #[error("no list of revoked certificates found: expected PEM of the kind X509 CRL")]
    None,
    /// One of the lists cannot be read.
    #[error("list {number} of revoked certificates: {why}")]
    Bad {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
}

/// Makes sure that a text holds lists of revoked certificates and nothing
/// damaged; returns how many. Who signed them is the proxy's to check.
///
/// # Errors
/// What is wrong.
pub fn check(pem: &str) -> Result<usize, Error> {
    let mut count = 0;
    for item in CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()) {
        count += 1;
        let bad = |why: String| Error::Bad { number: count, why };
        let der = item.map_err(|error| bad(error.to_string()))?;
        CertificateRevocationList::from_der(&der).map_err(|error| bad(error.to_string()))?;
    }
    if count == 0 { Err(Error::None) } else { Ok(count) }
}

/// Whether one of the lists is of one of those roots. Where none is, a proxy
/// that is given the lists accepts no certificate at all.
#[must_use]
pub fn is_of(pem: &str, roots_pem: &str) -> bool {
    let lists: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let lists = lists.iter().filter_map(|list| Some(CertificateRevocationList::from_der(list).ok()?.1));
    let issuers: Vec<Vec<u8>> = lists.map(|list| list.issuer().as_raw().to_vec()).collect();
    let Ok(roots) = Certificate::all_from_pem(roots_pem) else { return false };
    roots.iter().any(|root| {
        X509Certificate::from_der(root.der())
            .is_ok_and(|(_, root)| issuers.iter().any(|issuer| issuer == root.subject().as_raw()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_lists_and_nothing_else() {
        let list = include_str!("../testdata/crl.pem");
        assert_eq!(check(list), Ok(1));
        assert_eq!(check(&format!("{list}{list}")), Ok(2));
        assert!(is_of(list, include_str!("../testdata/p521-cert.pem")));
        let (other, _) = crate::issuer::Issuer::self_signed(
            "a",
            std::time::Duration::from_secs(60),
            std::time::SystemTime::now(),
        )
        .unwrap();
        assert!(!is_of(list, other.root_pem()));
        assert_eq!(check(""), Err(Error::None));
        assert_eq!(
            check("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
                .unwrap_err()
                .to_string()
                .split(':')
                .next(),
            Some("list 1 of revoked certificates")
        );
        assert!(check(&list[..list.len() / 2]).is_err());
    }
}
