//! Lists of revoked certificates.

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate, X509Error};

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
    /// An authority of the chain has no list.
    #[error(
        "there is no list that {0} has signed: proxies that have lists want one of every authority between a \
         certificate and its root, and refuse everybody otherwise"
    )]
    Missing(String),
}

/// Makes sure that every authority above a certificate has a list that it has signed:
/// those of the chain, and the roots that have signed one of them.
///
/// # Errors
/// What is wrong, or which list is missing.
pub fn covers(pem: &str, chain: &[Certificate], roots: &[Certificate]) -> Result<(), Error> {
    check(pem)?;
    let lists: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let lists: Vec<_> =
        lists.iter().filter_map(|list| Some(CertificateRevocationList::from_der(list).ok()?.1)).collect();
    let parse = |certificate: &'_ Certificate| {
        let der = certificate.der().to_vec();
        X509Certificate::from_der(&der)
            .ok()
            .map(|(_, parsed)| (parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()))
    };
    let issuers: Vec<Vec<u8>> = chain.iter().filter_map(parse).map(|(_, issuer)| issuer).collect();
    let anchors = roots.iter().filter(|root| {
        !chain.contains(root) && parse(root).is_some_and(|(subject, _)| issuers.contains(&subject))
    });
    for signer in chain.iter().chain(anchors) {
        let Ok((_, parsed)) = X509Certificate::from_der(signer.der()) else { continue };
        let is_its = |list: &&CertificateRevocationList<'_>| {
            list.issuer().as_raw() == parsed.subject().as_raw()
                // Signatures of rare kinds, which cannot be checked here, are left to proxies.
                && !matches!(
                    list.verify_signature(parsed.public_key()),
                    Err(X509Error::SignatureVerificationError)
                )
        };
        if !lists.iter().any(|list| is_its(&list)) {
            return Err(Error::Missing(format!("{:?}", parsed.subject().to_string())));
        }
    }
    Ok(())
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
    fn every_authority_of_the_chain_has_a_list() {
        let list = include_str!("../testdata/crl.pem");
        let own = Certificate::all_from_pem(include_str!("../testdata/p521-cert.pem")).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        let (other, _) = crate::issuer::Issuer::self_signed("a", hour, std::time::SystemTime::now()).unwrap();
        let other = Certificate::all_from_pem(other.root_pem()).unwrap();
        // A root that has signed nothing of the chain needs none.
        assert_eq!(covers(list, &own, &other), Ok(()));
        assert!(matches!(covers(list, &other, &other), Err(Error::Missing(_))));
        assert!(matches!(covers(list, &[own, other].concat(), &[]), Err(Error::Missing(_))));
        assert_eq!(covers("", &[], &[]), Err(Error::None));
    }

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
