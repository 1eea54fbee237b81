//! `ConfigMap` of the core group, and the certificates that one may hold.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::secret::{Flaw, Roots, Secret};

/// Values that are no secrets; the mesh uses certificates that sign others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Values as they are.
    pub data: BTreeMap<String, String>,
    /// What was read of it: the values never change.
    #[serde(skip)]
    roots: OnceLock<Result<Roots, Flaw>>,
}

impl ConfigMap {
    /// The certificates that sign others: `cacert`, else `ca.crt`.
    ///
    /// # Errors
    /// Why there are none that a proxy can use.
    pub fn roots(&self) -> Result<&Roots, &Flaw> {
        self.roots.get_or_init(|| self.read()).as_ref()
    }

    fn read(&self) -> Result<Roots, Flaw> {
        // The same values make certificates of a Secret.
        let same = Secret::of_values(self.data.clone());
        same.roots().cloned().map_err(|flaw| Flaw {
            field: flaw.field.replace("stringData.", "data."),
            message: flaw.message.clone(),
        })
    }
}

impl PartialEq for ConfigMap {
    /// Whether both say the same; what was read of them does not count.
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Eq for ConfigMap {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pki::issuer::Issuer;

    use super::*;

    #[test]
    fn certificates_are_checked_and_named_as_in_the_object() {
        let read = |name: &str, value: &str| {
            let data = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            ConfigMap { data, ..ConfigMap::default() }.roots().cloned().map_err(|flaw| flaw.field.clone())
        };
        let day = Duration::from_secs(86_400);
        let (issuer, _) = Issuer::self_signed("cluster.local", day, SystemTime::now()).unwrap();
        let root = issuer.root_pem();
        assert_eq!(read("ca.crt", root).unwrap().certificates, root.as_bytes());
        assert!(read("cacert", root).is_ok());
        assert_eq!(read("ca.crt", "nothing").unwrap_err(), "data.ca.crt");
        assert_eq!(read("ca.crt", "").unwrap_err(), "data.ca.crt");
        assert_eq!(read("other", root).unwrap_err(), "");
    }
}
