//! The bootstrap of gRPC without a proxy: it has to be there and name
//! certificates that are.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Provider of certificates that reads files.
const FILE_WATCHER: &str = "file_watcher";

#[derive(Deserialize)]
struct Bootstrap {
    #[serde(default)]
    certificate_providers: BTreeMap<String, Provider>,
}

#[derive(Deserialize)]
struct Provider {
    plugin_name: String,
    #[serde(default)]
    config: Files,
}

#[derive(Default, Deserialize)]
struct Files {
    certificate_file: Option<String>,
    private_key_file: Option<String>,
    ca_certificate_file: Option<String>,
}

/// Whether everything is there.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| format!("failed loading {}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let bootstrap: Bootstrap = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let watched =
        bootstrap.certificate_providers.into_values().filter(|provider| provider.plugin_name == FILE_WATCHER);
    for Provider { config: Files { certificate_file, private_key_file, ca_certificate_file }, .. } in watched
    {
        for file in [certificate_file, private_key_file, ca_certificate_file].into_iter().flatten() {
            if !Path::new(&file).exists() {
                return Err(format!("{file} does not exist"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cert) = (dir.path().join("grpc-bootstrap.json"), dir.path().join("cert-chain.pem"));
        assert!(check(&path).unwrap_err().starts_with("failed loading "));
        std::fs::write(&path, "{").unwrap();
        assert!(check(&path).unwrap_err().starts_with("failed loading "));
        let bootstrap = serde_json::json!({"xds_servers": [], "certificate_providers": {"default": {
            "plugin_name": "file_watcher", "config": {"certificate_file": cert, "refresh_interval": "900s"}}}});
        std::fs::write(&path, bootstrap.to_string()).unwrap();
        assert_eq!(check(&path), Err(format!("{} does not exist", cert.display())));
        std::fs::write(&cert, "").unwrap();
        assert_eq!(check(&path), Ok(()));
    }
}
