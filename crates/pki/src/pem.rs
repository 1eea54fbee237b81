//! PEM text: reading blocks, writing them, joining files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{self, SectionKind};
use zeroize::Zeroizing;

/// Characters of base64 per line.
const LINE: usize = 64;

/// The text is not PEM.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A block was begun and is damaged.
    #[error("damaged PEM: {0}")]
    Damaged(String),
    /// There is no block of that kind.
    #[error("no -----BEGIN {0}----- block in it")]
    Missing(&'static str),
}

/// The DER of all `CERTIFICATE` blocks; text around them and other blocks are skipped.
///
/// # Errors
/// When a block is damaged, or there is none.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((kind, der, after)) = next(rest)? {
        if kind == SectionKind::Certificate {
            found.push(der);
        }
        rest = after;
    }
    if found.is_empty() { Err(Error::Missing("CERTIFICATE")) } else { Ok(found) }
}

/// The first block that PEM readers know, its DER, and the text after it.
pub(crate) fn next(text: &[u8]) -> Result<Option<(SectionKind, Vec<u8>, &[u8])>, Error> {
    match pem::from_slice(text) {
        Ok(found) => Ok(found.map(|((kind, der), rest)| (kind, der, rest))),
        Err(error) => Err(Error::Damaged(error.to_string())),
    }
}

/// A block of that label.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Reserved in full, so that no part of a key stays behind in a buffer given back on growth.
    let mut text = String::with_capacity(body.len() + body.len() / LINE + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Joins PEM texts; each begins on a line of its own, whatever the one before ends with.
#[must_use]
pub fn concat<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for part in parts {
        joined.push_str(part);
        if !joined.is_empty() && !joined.ends_with('\n') {
            joined.push('\n');
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_noise_and_missing_newlines() {
        let a = encode("CERTIFICATE", &[1; 100]);
        let b = encode("CERTIFICATE", &[2; 3]);
        let joined = concat(["note\n", a.trim_end(), "", &b, "tail"]);
        assert_eq!(certificates(&joined).unwrap(), [vec![1; 100], vec![2; 3]]);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(certificates("hello").unwrap_err(), Error::Missing("CERTIFICATE"));
        let cut = encode("CERTIFICATE", &[7; 60]).replace("-----END", "");
        assert!(matches!(certificates(&cut), Err(Error::Damaged(_))));
    }
}
