//! `Secret` of the core group, and the credentials of TLS that one may hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::certificate::Certificate;
use serde::Deserialize;

/// Type of Secrets that must hold a certificate and its key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";

/// Keys and certificates.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// `kubernetes.io/tls`, `Opaque`, …
    #[serde(rename = "type")]
    pub secret_type: String,
    /// Values in base64.
    pub data: BTreeMap<String, String>,
    /// Values as they are; they come before those of `data`.
    pub string_data: BTreeMap<String, String>,
    /// What was read of it: the values never change.
    #[serde(skip)]
    pair: OnceLock<Result<Pair, Flaw>>,
    #[serde(skip)]
    roots: OnceLock<Result<Roots, Flaw>>,
}

/// A certificate chain with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificates in PEM, the server's own first.
    pub chain: Vec<u8>,
    /// Private key in PEM.
    pub key: Vec<u8>,
    /// Answer of the issuer that the certificate is not revoked (OCSP, DER), if there is one.
    pub staple: Option<Vec<u8>>,
}

/// Certificates that sign others.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots {
    /// The certificates in PEM.
    pub certificates: Vec<u8>,
    /// Lists of revoked certificates in PEM, if there are any.
    pub revoked: Option<Vec<u8>>,
}

/// Why a Secret holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The value that is wrong, `data.tls.crt`; empty when one is missing.
    pub field: String,
    /// What is wrong and what to write instead; no part of a value.
    pub message: String,
}

impl Secret {
    /// One of values as they are.
    pub(super) fn of_values(values: BTreeMap<String, String>) -> Self {
        Self { string_data: values, ..Self::default() }
    }

    /// A value, decoded; `None` when there is none or it is not base64.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(text) = self.string_data.get(name) {
            return Some(text.clone().into_bytes());
        }
        // Line breaks inside are as common in files as they are harmless.
        let text: String = self.data.get(name)?.split_ascii_whitespace().collect();
        STANDARD.decode(text).ok()
    }

    /// Whether it has a value of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.data.contains_key(name) || self.string_data.contains_key(name)
    }

    /// Its certificate and key: `cert` and `key`, else `tls.crt` and `tls.key`.
    ///
    /// # Errors
    /// Why there are none that a proxy can use.
    pub fn pair(&self) -> Result<&Pair, &Flaw> {
        self.pair.get_or_init(|| self.read_pair()).as_ref()
    }

    /// The certificates that sign others: `cacert`, else `ca.crt`.
    ///
    /// # Errors
    /// Why there are none that a proxy can use.
    pub fn roots(&self) -> Result<&Roots, &Flaw> {
        self.roots.get_or_init(|| self.read_roots()).as_ref()
    }

    fn read_pair(&self) -> Result<Pair, Flaw> {
        let full = |name: &str| self.value(name).filter(|value| !value.is_empty());
        let read = |chain_name: &str, key_name: &str| Some((full(chain_name)?, full(key_name)?));
        let (chain_name, key_name, staple_name) = if read("cert", "key").is_some() {
            ("cert", "key", "")
        } else {
            ("tls.crt", "tls.key", "tls.ocsp-staple")
        };
        let Some((chain, key)) = read(chain_name, key_name) else {
            return Err(
                self.missing(&["cert", "key", "tls.crt", "tls.key"], "tls.crt and tls.key, or cert and key")
            );
        };
        let at = |name: &str, message: String| Flaw { field: self.field(name), message };
        let text = |name: &str, value: &[u8]| {
            std::str::from_utf8(value).map(str::to_owned).map_err(|_| at(name, "is not PEM".into()))
        };
        match pki::pair::check(&text(chain_name, &chain)?, &text(key_name, &key)?) {
            Ok(_) => {}
            Err(error @ pki::pair::Error::Chain(_)) => return Err(at(chain_name, error.to_string())),
            Err(error) => return Err(at(key_name, error.to_string())),
        }
        Ok(Pair { chain, key, staple: full(staple_name) })
    }

    fn read_roots(&self) -> Result<Roots, Flaw> {
        let full = |name: &str| self.value(name).filter(|value| !value.is_empty());
        let (name, revoked_name) =
            if full("cacert").is_some() { ("cacert", "crl") } else { ("ca.crt", "ca.crl") };
        let Some(certificates) = full(name) else {
            return Err(self.missing(&["cacert", "ca.crt"], "ca.crt or cacert"));
        };
        let flaw = |name: &str, message: String| Flaw { field: self.field(name), message };
        let text = String::from_utf8_lossy(&certificates);
        Certificate::all_from_pem(&text).map_err(|error| flaw(name, error.to_string()))?;
        let revoked = full(revoked_name);
        if let Some(lists) = &revoked {
            pki::crl::check(&String::from_utf8_lossy(lists))
                .map_err(|error| flaw(revoked_name, error.to_string()))?;
        }
        Ok(Roots { certificates, revoked })
    }

    fn field(&self, name: &str) -> String {
        let map = if self.string_data.contains_key(name) { "stringData" } else { "data" };
        format!("{map}.{name}")
    }

    fn missing(&self, candidates: &[&str], expected: &str) -> Flaw {
        let empty =
            candidates.iter().find(|name| self.has(name) && self.value(name).is_none_or(|v| v.is_empty()));
        if let Some(name) = empty {
            return Flaw {
                field: self.field(name),
                message: format!("is empty or not base64: expected {expected}"),
            };
        }
        let found: Vec<&str> =
            self.data.keys().chain(self.string_data.keys()).map(String::as_str).take(4).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        Flaw {
            field: String::new(),
            message: format!("holds no credentials: expected {expected}, found {found}"),
        }
    }
}

impl PartialEq for Secret {
    /// Whether both say the same; what was read of them does not count.
    fn eq(&self, other: &Self) -> bool {
        self.secret_type == other.secret_type
            && self.data == other.data
            && self.string_data == other.string_data
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    /// The values are for nobody's eyes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("type", &self.secret_type).field("keys", &keys).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roots(..)")
    }
}

#[cfg(test)]
mod tests;
