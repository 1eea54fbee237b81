//! Bootstrap of gRPC's own xDS client, for applications that speak xDS
//! through the agent without a proxy.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::config::node::Node;

/// Name of the listener that a gRPC server asks for; gRPC puts its address in.
const SERVER_LISTENER: &str = "xds.istio.io/grpc/lds/inbound/%s";
/// How often gRPC reads the certificates again.
const REFRESH: &str = "900s";
/// Metadata that istiod has a use for; gRPC passes no other on.
const KNOWN: &[&str] = &[
    "ANNOTATIONS",
    "APP_CONTAINERS",
    "AUTO_REGISTER_GROUP",
    "BASE",
    "CLOUDRUN_ADDR",
    "CLUSTER_ID",
    "DISABLE_HBONE_SEND",
    "DNS_AUTO_ALLOCATE",
    "DNS_CAPTURE",
    "DNS_PROXY_ADDR",
    "ENABLE_HBONE",
    "ENABLE_SELF_DISCOVERY",
    "ENVOY_PROMETHEUS_PORT",
    "ENVOY_SECURE_MERGED_METRICS_PORT",
    "ENVOY_SECURE_METRICS_PORT",
    "ENVOY_SKIP_DEPRECATED_LOGS",
    "ENVOY_STATUS_PORT",
    "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
    "HTTP10",
    "HTTP_PROXY_PORT",
    "IDLE_TIMEOUT",
    "INBOUND_LISTENER_EXACT_BALANCE",
    "INSTANCE_IPS",
    "INTERCEPTION_MODE",
    "ISTIO_PROXY_SHA",
    "ISTIO_REVISION",
    "ISTIO_VERSION",
    "LABELS",
    "MESH_ID",
    "METADATA_DISCOVERY",
    "NAME",
    "NAMESPACE",
    "NETWORK",
    "NODE_NAME",
    "OUTBOUND_LISTENER_EXACT_BALANCE",
    "OUTLIER_LOG_PATH",
    "OWNER",
    "PILOT_SAN",
    "PLATFORM_METADATA",
    "POD_PORTS",
    "PROXY_CONFIG",
    "REQUESTED_NETWORK_VIEW",
    "SERVICE_ACCOUNT",
    "STATIC_LABELS",
    "STS_PORT",
    "TLS_CLIENT_CERT_CHAIN",
    "TLS_CLIENT_KEY",
    "TLS_CLIENT_ROOT_CERT",
    "TLS_SERVER_CERT_CHAIN",
    "TLS_SERVER_KEY",
    "TLS_SERVER_ROOT_CERT",
    "UNPRIVILEGED_POD",
    "WORKLOAD_ENTRY",
    "WORKLOAD_IDENTITY_SOCKET_FILE",
    "WORKLOAD_NAME",
];

/// What is written, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Somebody has asked for it: it must be there.
    pub is_told: bool,
    /// Directory of key and certificates, if they are written out.
    pub certificates: Option<PathBuf>,
}

/// The bootstrap cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write gRPC's bootstrap {}: {source}; name another file in GRPC_XDS_BOOTSTRAP, or nothing for none", path.display())]
pub struct Error {
    /// The file.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Builds the bootstrap. `socket` is the absolute path of the agent's xDS
/// socket.
#[must_use]
pub fn build(node: &Node, socket: &Path, certificates: Option<&Path>) -> Value {
    let mut metadata: Map<String, Value> = node
        .metadata
        .iter()
        .filter(|(name, _)| KNOWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if metadata.get("POD_PORTS").is_some_and(|ports| ports == "[]") {
        metadata.remove("POD_PORTS");
    }
    metadata.insert("GENERATOR".into(), json!("grpc"));
    let mut all = json!({
        "xds_servers": [{
            "server_uri": format!("unix://{}", socket.display()),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": node.id.to_string(),
            "metadata": metadata,
            "locality": crate::config::node::locality_json(&node.locality),
        },
        "server_listener_resource_name_template": SERVER_LISTENER,
    });
    if let Some(dir) = certificates {
        let file = |name: &str| dir.join(name);
        all["certificate_providers"] = json!({"default": {
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": file("cert-chain.pem"),
                "private_key_file": file("key.pem"),
                "ca_certificate_file": file("root-cert.pem"),
                "refresh_interval": REFRESH,
            },
        }});
    }
    all
}

/// Writes it, readable for everybody, so that no reader ever sees a part.
///
/// # Errors
/// When the file or its directory cannot be made.
pub fn write(path: &Path, bootstrap: &Value) -> Result<(), Error> {
    let failed = |source| Error { path: path.into(), source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = dir.join(name);
    let written = || -> io::Result<()> {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(format!("{bootstrap:#}\n").as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(&new, path)
    };
    written().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_for_everybody_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/grpc-bootstrap.json");
        write(&path, &json!({"a": 1})).unwrap();
        write(&path, &json!({"a": 2})).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n  \"a\": 2\n}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let error = write(Path::new("/proc/nowhere/b.json"), &json!({})).unwrap_err().to_string();
        assert!(error.starts_with("write gRPC's bootstrap /proc/nowhere/b.json: "), "{error}");
    }
}
