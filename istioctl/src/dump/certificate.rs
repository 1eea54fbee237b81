//! The certificates in the secrets of a proxy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::view::{DataSource, Secret, SpiffeValidator};
use super::{Error, Resource};

/// What is told of the first certificate of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Name of the secret.
    pub name: String,
    /// `CA` or `Cert Chain`; empty if there is no certificate in it.
    pub kind: String,
    /// Whether it is in use.
    pub state: String,
    /// Whether it is now.
    pub is_valid: bool,
    /// In hexadecimal digits.
    pub serial: String,
    /// Its end.
    pub not_after: String,
    /// Its begin.
    pub not_before: String,
    /// Trust domain that it is of or for; empty if not known.
    pub trust_domain: String,
    /// What stands in it, as PEM.
    pub pem: Vec<u8>,
}

/// Type of a list of roots by trust domain.
const SPIFFE: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// What is told of a secret at a time: of each trust domain, if it has several.
///
/// # Errors
/// When it is of another form.
pub fn items(resource: &Resource<'_>, now: OffsetDateTime) -> Result<Vec<Item>, Error> {
    let secret: Secret<'_> = resource.read()?;
    let state = match resource.state {
        super::State::Warming => "WARMING",
        _ => "ACTIVE",
    };
    let item = |trust_domain: &str, source: Option<&DataSource<'_>>| {
        let blank = Item { name: resource.name.to_string(), state: state.to_owned(), ..Item::default() };
        let bytes = source.map(decode).unwrap_or_default();
        if bytes.is_empty() { blank } else { describe(blank, bytes, trust_domain, now) }
    };
    let chain = secret.tls_certificate.as_ref().map(|own| &own.certificate_chain);
    let roots = secret.validation_context.as_ref();
    if chain.is_some_and(|chain| !chain.inline_bytes.is_empty()) {
        return Ok(vec![item("", chain)]);
    }
    if let Some(roots) = roots.filter(|roots| !roots.trusted_ca.inline_bytes.is_empty()) {
        return Ok(vec![item("", Some(&roots.trusted_ca))]);
    }
    let validator = roots.and_then(|roots| roots.custom_validator_config.as_ref());
    if let Some(validator) = validator {
        let validator: SpiffeValidator<'_> =
            validator.read().map_err(|source| Error::Part { what: "a validator of SPIFFE", source })?;
        if &*validator.type_url == SPIFFE {
            let domains = validator.trust_domains.iter();
            return Ok(domains.map(|domain| item(&domain.name, Some(&domain.trust_bundle))).collect());
        }
    }
    Ok(vec![item("", None)])
}

pub(crate) fn decode(source: &DataSource<'_>) -> Vec<u8> {
    // What is no base64 is shown as it is: as no certificate.
    STANDARD
        .decode(source.inline_bytes.as_bytes())
        .unwrap_or_else(|_| source.inline_bytes.as_bytes().to_vec())
}

/// All certificates of a PEM, as DER.
pub fn ders(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(pem).map_while(Result::ok).map(|block| block.contents)
}

fn describe(blank: Item, pem: Vec<u8>, trust_domain: &str, now: OffsetDateTime) -> Item {
    let known = ders(&pem).next().and_then(|der| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        let (from, to) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let is_ca = certificate.basic_constraints().ok().flatten().is_some_and(|basic| basic.value.ca);
        let own = || {
            let names = certificate.subject_alternative_name().ok().flatten();
            let names = names.iter().flat_map(|names| &names.value.general_names);
            let mut ids = names.filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
                _ => None,
            });
            ids.next_back().and_then(|id| id.split('/').next()).unwrap_or_default().to_owned()
        };
        let digits: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Item {
            kind: if is_ca { "CA" } else { "Cert Chain" }.into(),
            is_valid: now > from && now < to,
            serial: format!("{:0>32}", digits.trim_start_matches('0')),
            not_after: to.format(&Rfc3339).unwrap_or_default(),
            not_before: from.format(&Rfc3339).unwrap_or_default(),
            trust_domain: if trust_domain.is_empty() { own() } else { trust_domain.to_owned() },
            ..blank.clone()
        })
    });
    Item { pem, ..known.unwrap_or(blank) }
}
