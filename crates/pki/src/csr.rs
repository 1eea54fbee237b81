//! Certificate signing requests (PKCS#10).

use names::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _, SanType, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension};
use x509_parser::public_key::PublicKey;

use crate::issuer::San;
use crate::key::PrivateKey;

/// Largest request that is read; real ones have one or two kilobytes.
pub const MAX_LENGTH: usize = 64 * 1024;
/// Fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;

/// Why a request is refused or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More bytes than any real request has.
    #[error("the request has {0} bytes, more than the {MAX_LENGTH} allowed")]
    TooLong(usize),
    /// No PEM block of the right kind.
    #[error("no PEM block CERTIFICATE REQUEST found")]
    NoPem,
    /// The block holds no request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// The signature does not fit the key.
    #[error("the signature of the request does not fit its public key")]
    Signature,
    /// An RSA key that is too short to be trusted.
    #[error("the request has an RSA key of {0} bits: use {MIN_RSA_BITS} or more")]
    ShortKey(usize),
    /// A key of a kind that is not supported.
    #[error("the request's public key is not supported: use ECDSA P-256 or P-384, Ed25519 or RSA")]
    UnsupportedKey,
    /// The request asks for more than its sender is.
    #[error("unable to validate SAN identities in the request: {0}")]
    Claim(String),
    /// A request of ours cannot be made.
    #[error("make a certificate request: {0}")]
    Make(String),
}

/// What requests begin with.
const BEGIN: [&str; 2] = ["-----BEGIN CERTIFICATE REQUEST-----", "-----BEGIN NEW CERTIFICATE REQUEST-----"];

/// A request whose signature was checked. Only its public key counts where we
/// sign, and whether it asks for a common name.
pub struct Csr {
    pub(crate) public_key: SubjectPublicKeyInfo,
    pub(crate) has_common_name: bool,
    /// The names that it asks for.
    uris: Vec<String>,
    /// What it asks for besides, in words.
    others: Vec<&'static str>,
}

impl std::fmt::Debug for Csr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csr").field("has_common_name", &self.has_common_name).finish_non_exhaustive()
    }
}

impl Csr {
    /// Reads the first request of a PEM text.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error::TooLong(text.len()));
        }
        let begins = BEGIN.iter().flat_map(|begin| text.match_indices(begin));
        let mut starts: Vec<usize> = begins.map(|(at, _)| at).collect();
        starts.sort_unstable();
        let start = *starts.first().ok_or(Error::NoPem)?;
        if starts.len() > 1 {
            return Err(Error::Malformed("another request after its end".into()));
        }
        let (pem, _) = x509_parser::pem::Pem::read(std::io::Cursor::new(&text.as_bytes()[start..]))
            .map_err(|_| Error::NoPem)?;
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|error| Error::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::Malformed("bytes after its end".into()));
        }
        let info = &request.certification_request_info;
        if let Ok(PublicKey::RSA(key)) = info.subject_pki.parsed()
            && key.key_size() < MIN_RSA_BITS
        {
            return Err(Error::ShortKey(key.key_size()));
        }
        let public_key =
            SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| Error::UnsupportedKey)?;
        request.verify_signature().map_err(|_| Error::Signature)?;
        let (uris, others) = claims(&request);
        let has_common_name = info.subject.iter_common_name().next().is_some();
        Ok(Self { public_key, has_common_name, uris, others })
    }

    /// Checks that it asks for nothing but one of these names: for signers that
    /// put into a certificate what the request says.
    ///
    /// # Errors
    /// What it asks for besides.
    pub fn claims_only(&self, ids: &[SpiffeId]) -> Result<(), Error> {
        if let Some(other) = self.others.first() {
            return Err(Error::Claim(format!("it asks for {other}: only one URI may be in it")));
        }
        let [uri] = self.uris.as_slice() else {
            return Err(Error::Claim(format!("it has {} URIs: one is expected", self.uris.len())));
        };
        if ids.iter().any(|id| id.to_string() == *uri) {
            return Ok(());
        }
        Err(Error::Claim(format!("{uri:?} is not an identity of the caller")))
    }

    /// As if `key` had been sent in a request: for certificates that the CA
    /// makes for itself.
    ///
    /// # Errors
    /// When the key has no encoding, which no key of ours lacks.
    pub fn of_key(key: &PrivateKey) -> Result<Self, Error> {
        let der = key.pair().subject_public_key_info();
        let public_key = SubjectPublicKeyInfo::from_der(&der).map_err(|_| Error::UnsupportedKey)?;
        Ok(Self { public_key, has_common_name: false, uris: Vec::new(), others: Vec::new() })
    }
}

/// What a request asks for: URIs, and the rest in words.
fn claims(request: &X509CertificationRequest<'_>) -> (Vec<String>, Vec<&'static str>) {
    let (mut uris, mut others) = (Vec::new(), Vec::new());
    // Istio's agents send an organization without a text.
    let subject = request.certification_request_info.subject.iter_attributes();
    if subject
        .into_iter()
        .any(|part| *part.attr_type() != OID_X509_ORGANIZATION_NAME || !part.as_slice().is_empty())
    {
        others.push("a subject");
    }
    // Others read the extensions of all attributes, so each counts.
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
            others.push("an attribute");
            continue;
        };
        for extension in requested.extensions.iter().map(|one| one.parsed_extension()) {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                others.push("an extension");
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    _ => others.push("a name that is no URI"),
                }
            }
        }
    }
    (uris, others)
}

/// Makes a request for that identity, as Istio's agents do: an empty subject
/// and the identity as a critical subject alternative name.
///
/// # Errors
/// When signing fails.
pub fn request(key: &PrivateKey, identity: &SpiffeId) -> Result<String, Error> {
    let failed = |error: rcgen::Error| Error::Make(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(failed)?)];
    let request = params.serialize_request(key.pair()).map_err(failed)?;
    request.pem().map_err(failed)
}

/// Makes a request of a server for these names, DNS names or addresses.
///
/// # Errors
/// When a name is none, or signing fails.
pub fn server_request(key: &PrivateKey, names: &[San]) -> Result<String, Error> {
    let failed = |error: rcgen::Error| Error::Make(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let names = names.iter().map(|name| match name {
        San::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
        San::Ip(address) => Ok(SanType::IpAddress(*address)),
        San::Spiffe(id) => Ok(SanType::URI(id.to_string().try_into()?)),
    });
    params.subject_alt_names = names.collect::<Result<_, _>>().map_err(failed)?;
    params.serialize_request(key.pair()).map_err(failed)?.pem().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Algorithm;

    #[test]
    fn a_request_may_ask_for_its_senders_name_only() {
        let own: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let other: SpiffeId = "spiffe://cluster.local/ns/a/sa/c".parse().unwrap();
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = Csr::parse(&request(&key, &own).unwrap()).unwrap();
        csr.claims_only(&[other.clone(), own.clone()]).unwrap();
        assert!(csr.claims_only(&[other]).unwrap_err().to_string().contains("not an identity of the caller"));
        let asks = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(own.to_string().try_into().unwrap())];
            change(&mut params);
            let text = params.serialize_request(key.pair()).unwrap().pem().unwrap();
            let result = Csr::parse(&text).unwrap().claims_only(std::slice::from_ref(&own));
            result.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let organization = rcgen::DnType::OrganizationName;
        assert_eq!(asks(&|params| params.distinguished_name.push(organization.clone(), "")), "");
        assert!(
            asks(&|params| params.distinguished_name.push(organization.clone(), "x")).contains("a subject")
        );
        let common = rcgen::DnType::CommonName;
        assert!(asks(&|params| params.distinguished_name.push(common.clone(), "")).contains("a subject"));
        let dns = || SanType::DnsName("a.example".try_into().unwrap());
        assert!(asks(&|params| params.subject_alt_names.push(dns())).contains("no URI"));
        assert!(
            asks(&|params| params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign])
                .contains("an extension")
        );
        let twice = |params: &mut CertificateParams| {
            let first = params.subject_alt_names[0].clone();
            params.subject_alt_names.push(first);
        };
        assert!(asks(&twice).contains("2 URIs"));
        assert!(asks(&|params| params.subject_alt_names.clear()).contains("0 URIs"));
    }

    fn pem() -> String {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        request(&key, &"spiffe://cluster.local/ns/a/sa/b".parse().unwrap()).unwrap()
    }

    #[test]
    fn reads_what_it_writes_and_tolerates_text_around() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa(2048)] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let text = request(&key, &"spiffe://cluster.local/ns/a/sa/b".parse().unwrap()).unwrap();
            assert!(Csr::parse(&format!("noise\n{text}more noise")).is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn refuses_a_signature_that_does_not_fit() {
        let text = pem();
        let lines: Vec<&str> = text.lines().collect();
        let mut body = lines[1..lines.len() - 1].concat().into_bytes();
        // The last signs of the base64 text hold the end of the signature.
        let at = body.len() - 6;
        body[at] = if body[at] == b'A' { b'B' } else { b'A' };
        let bad = format!("{}\n{}\n{}\n", lines[0], String::from_utf8(body).unwrap(), lines[lines.len() - 1]);
        assert!(
            matches!(Csr::parse(&bad), Err(Error::Signature | Error::Malformed(_))),
            "{:?}",
            Csr::parse(&bad)
        );
    }

    #[test]
    fn refuses_noise() {
        assert!(matches!(Csr::parse(""), Err(Error::NoPem)));
        assert!(matches!(Csr::parse(&"x".repeat(1 << 20)), Err(Error::TooLong(_))));
        let empty = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert!(matches!(Csr::parse(empty), Err(Error::Malformed(_))));
    }
}
