//! `Secret` of the core group.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Keys and certificates.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// `kubernetes.io/tls`, `Opaque`, …
    #[serde(rename = "type")]
    pub secret_type: String,
    /// Values in base64.
    pub data: BTreeMap<String, String>,
    /// Values as they are.
    pub string_data: BTreeMap<String, String>,
}

impl fmt::Debug for Secret {
    /// The values are for nobody's eyes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("type", &self.secret_type).field("keys", &keys).finish()
    }
}
