//! Root certificates of a file: those that can be read, and what is wrong with
//! the others. A proxy refuses a bundle as a whole for one bad certificate.

use crate::certificate::{Certificate, join_pem};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The good certificates, PEM; empty when there is none.
    pub pem: String,
    /// How many they are.
    pub count: usize,
    /// What is wrong with the others.
    pub problems: Vec<String>,
}

/// Reads all certificates of a text; whatever stands between them is left out.
#[must_use]
pub fn read(text: &str) -> Bundle {
    let mut good: Vec<&str> = Vec::new();
    let mut problems = Vec::new();
    let mut rest = text;
    let mut number = 0;
    while let Some(start) = rest.find(BEGIN) {
        number += 1;
        rest = &rest[start..];
        let next = rest[BEGIN.len()..].find(BEGIN).map_or(rest.len(), |at| at + BEGIN.len());
        let Some(end) = rest[..next].find(END) else {
            problems.push(format!("certificate {number}: it has no end"));
            rest = &rest[next..];
            continue;
        };
        let block = &rest[..end + END.len()];
        match Certificate::all_from_pem(block) {
            Ok(_) => good.push(block),
            Err(error) => {
                let error = error.to_string();
                // It counts from the beginning of what it was given.
                let why = error.strip_prefix("certificate 1: ").unwrap_or(&error);
                problems.push(format!("certificate {number}: {why}"));
            }
        }
        rest = &rest[block.len()..];
    }
    Bundle { pem: join_pem(&good), count: good.len(), problems }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::issuer::Issuer;

    #[test]
    fn bad_certificates_are_left_out_and_told() {
        let root = || {
            let (issuer, _) = Issuer::self_signed("a", Duration::from_secs(60), SystemTime::now()).unwrap();
            issuer.root_pem().to_owned()
        };
        let (a, b) = (root(), root());
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &a[..a.len() / 2];
        let bundle = read(&format!("# roots\n{a}{bad}\n{cut}\n{b}"));
        assert_eq!(bundle.pem, format!("{a}{b}"));
        assert_eq!(bundle.count, 2);
        assert_eq!(bundle.problems.len(), 2, "{:?}", bundle.problems);
        assert!(bundle.problems[0].starts_with("certificate 2: "), "{:?}", bundle.problems);
        assert!(bundle.problems[1].starts_with("certificate 3: it has no end"), "{:?}", bundle.problems);
        assert_eq!(read("nothing"), Bundle::default());
    }
}
