//! The way from a signing certificate to a root, looked at before anything is
//! signed: what does not verify at a peer would only show when requests fail.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::certificate::Certificate;
use crate::issuer::Error;

/// A certificate with the place it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    pub(crate) file: &'static str,
    /// Which one in the file, counted from 1.
    pub(crate) number: usize,
    pub(crate) certificate: &'a Certificate,
}

/// The certificates of a file.
pub(crate) fn steps<'a>(file: &'static str, all: &'a [Certificate]) -> Vec<Step<'a>> {
    let step = |(index, certificate)| Step { file, number: index + 1, certificate };
    all.iter().enumerate().map(step).collect()
}

/// Finds a path from `start` to one of `roots` on which every certificate may
/// sign now, and returns until when.
pub(crate) fn check(
    start: Step<'_>,
    chain: &[Step<'_>],
    roots: &[Step<'_>],
    now: SystemTime,
) -> Result<SystemTime, Error> {
    let mut used = vec![false; chain.len()];
    walk(start, 0, chain, &mut used, roots, now).map_err(|error| {
        error.unwrap_or_else(|| Error::NoPath {
            cert: start.file,
            root: roots.first().map_or("the roots", |root| root.file),
        })
    })
}

/// `below`: how many CA certificates are between `current` and a leaf. The
/// error is that of the first path that leads somewhere.
fn walk(
    current: Step<'_>,
    below: usize,
    chain: &[Step<'_>],
    used: &mut [bool],
    roots: &[Step<'_>],
    now: SystemTime,
) -> Result<SystemTime, Option<Error>> {
    may_sign(current, below, now).map_err(Some)?;
    let until = current.certificate.not_after;
    if roots.iter().any(|root| root.certificate == current.certificate) {
        return Ok(until);
    }
    let mut first = None;
    for root in roots.iter().filter(|root| is_signed_by(current.certificate, root.certificate)) {
        match may_sign(*root, below + 1, now) {
            Ok(()) => return Ok(until.min(root.certificate.not_after)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    for (index, next) in chain.iter().enumerate() {
        // A chain that leads in a circle ends when all are used.
        if used[index] || !is_signed_by(current.certificate, next.certificate) {
            continue;
        }
        used[index] = true;
        match walk(*next, below + 1, chain, used, roots, now) {
            Ok(end) => return Ok(until.min(end)),
            Err(error) => first = first.or(error),
        }
    }
    Err(first)
}

/// Whether peers accept what it signs.
fn may_sign(step: Step<'_>, below: usize, now: SystemTime) -> Result<(), Error> {
    let Step { file, number, certificate } = step;
    let bad = |why: String| Err(Error::Unusable { file, number, why });
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.der()) else {
        return bad("cannot be read".into());
    };
    if !certificate.is_ca {
        return bad("is not a CA certificate (basic constraints say CA:FALSE)".into());
    }
    match parsed.key_usage() {
        Err(error) => return bad(format!("its key usage cannot be read: {error}")),
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            return bad("its key usage lacks keyCertSign, so peers refuse what it signs".into());
        }
        Ok(_) => {}
    }
    let length = parsed.basic_constraints().ok().flatten().and_then(|basic| basic.value.path_len_constraint);
    if let Some(length) = length
        && below > length as usize
    {
        return bad(format!(
            "its path length constraint allows {length} CA certificates below it, and there are {below}"
        ));
    }
    if certificate.not_before > now {
        return bad(format!("is not valid before {}: compare the clocks", stamp(certificate.not_before)));
    }
    if certificate.not_after <= now {
        return bad(format!("has expired at {}: renew it", stamp(certificate.not_after)));
    }
    Ok(())
}

fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(certificate.der()), X509Certificate::from_der(issuer.der()))
    else {
        return false;
    };
    certificate.issuer() == issuer.subject()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

fn stamp(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_else(|_| format!("{time:?}"))
}
