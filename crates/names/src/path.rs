//! Files and sockets of a proxy container. Paths that start with `./` are
//! relative to the agent's working directory (`/` in the container image).

/// Unix socket on which the agent serves SDS to Envoy.
pub const SDS_SOCKET: &str = "./var/run/secrets/workload-spiffe-uds/socket";
/// Directory of [`SDS_SOCKET`].
pub const SDS_SOCKET_DIR: &str = "./var/run/secrets/workload-spiffe-uds";
/// Unix socket on which the agent proxies ADS, below the config path.
pub const ADS_SOCKET_NAME: &str = "XDS";
/// Default of `ProxyConfig.configPath`.
pub const CONFIG_PATH: &str = "./etc/istio/proxy";
/// Envoy's bootstrap, below the config path.
pub const BOOTSTRAP_NAME: &str = "envoy-rev.json";
/// The pod's service account token (audience `istio-ca`); read for every call.
pub const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
/// Root certificates that authenticate istiod.
pub const ISTIOD_ROOT_CERT: &str = "./var/run/secrets/istio/root-cert.pem";
/// Mesh configuration as a file.
pub const MESH_CONFIG: &str = "./etc/istio/config/mesh";
/// Downward API: the pod's labels.
pub const POD_LABELS: &str = "./etc/istio/pod/labels";
/// Downward API: the pod's annotations.
pub const POD_ANNOTATIONS: &str = "./etc/istio/pod/annotations";
/// Plug-in CA files of istiod.
pub const CA_CERTS_DIR: &str = "./etc/cacerts";
