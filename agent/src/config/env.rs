//! The environment: every variable that the agent reads, in one table, read
//! once. `proxyMetadata` of the ProxyConfig fills in what is not set.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Variables of the process at its start.
#[must_use]
pub fn snapshot() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A variable: name, default, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Value when it is not set.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

macro_rules! variables {
    ($($id:ident = $default:literal, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $id: Variable = Variable { name: stringify!($id), default: $default, doc: $doc };
        )*
        /// All of them.
        pub const ALL: &[Variable] = &[$($id),*];
    };
}

variables! {
    POD_NAME = "", "Name of the pod.";
    POD_NAMESPACE = "default", "Namespace of the pod.";
    INSTANCE_IP = "", "First address of the pod; the addresses of its interfaces follow.";
    SERVICE_ACCOUNT = "default", "Service account of the pod.";
    HOST_IP = "", "Address of the node.";
    TRUST_DOMAIN = "cluster.local", "Trust domain of the mesh.";
    ISTIO_CPU_LIMIT = "0", "CPUs that the container may use; the number of Envoy's threads when nothing else sets it.";
    PROXY_CONFIG = "", "ProxyConfig, YAML or JSON, over the mesh's defaults.";
    CA_ADDR = "", "HOST:PORT of the CA; the discovery address when empty.";
    CA_ROOT_CA = "", "File with the roots that authenticate the CA, or SYSTEM.";
    XDS_ROOT_CA = "", "File with the roots that authenticate istiod's xDS, or SYSTEM.";
    ISTIOD_SAN = "", "Name that istiod's certificate must have instead of its host name.";
    SECRET_TTL = "24h", "Lifetime of certificates that is asked for.";
    SECRET_GRACE_PERIOD_RATIO = "0.5", "Part of the lifetime that is left when a certificate is renewed.";
    SECRET_GRACE_PERIOD_RATIO_JITTER = "0.01", "Random part of that ratio.";
    WORKLOAD_RSA_KEY_SIZE = "", "Bits of an RSA key; when not set the key is ECDSA.";
    ECC_SIGNATURE_ALGORITHM = "", "ECDSA for an ECDSA key even when an RSA size is set.";
    ECC_CURVE = "P256", "Curve of an ECDSA key: P256 or P384.";
    ISTIO_DELTA_XDS = "true", "Envoy asks for what has changed only.";
    DISABLE_ENVOY = "false", "Do not start Envoy.";
    ENVOY_STATUS_PORT = "15021", "Port on which Envoy passes readiness probes on.";
    ENVOY_PROMETHEUS_PORT = "15090", "Port of Envoy's own metrics.";
    ENVOY_SKIP_DEPRECATED_LOGS = "true", "Envoy does not log the use of deprecated settings.";
    ISTIO_BOOTSTRAP = "", "Template of the bootstrap: not supported, use ISTIO_BOOTSTRAP_OVERRIDE.";
    ISTIO_BOOTSTRAP_OVERRIDE = "", "File that is merged over the bootstrap by Envoy.";
    HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED = "true", "Envoy cuts the fragment off paths instead of refusing them.";
    MINIMUM_DRAIN_DURATION = "5s", "Shortest drain with EXIT_ON_ZERO_ACTIVE_CONNECTIONS.";
    EXIT_ON_ZERO_ACTIVE_CONNECTIONS = "false", "Drain as long as there are connections.";
    METRICS_LOCALHOST_ACCESS_ONLY = "false", "Metrics are for this machine only.";
    WORKLOAD_IDENTITY_SOCKET_FILE = "socket", "Name of the SDS socket; others, of SDS servers beside the agent, are not supported yet.";
    ISTIO_ENVOY_ENABLE_CORE_DUMP = "false", "Envoy writes a core file when it crashes.";
    PILOT_ENABLE_CA_CRL = "true", "Refuse to run where there is a list of revoked certificates, which is not supported yet.";
    ISTIO_META_DNS_CAPTURE = "false", "Not supported yet: the agent answers DNS requests.";
    ISTIO_META_ENABLE_DNS_SERVER = "false", "Not supported yet: the agent of a gateway answers DNS requests.";
    DNS_PROXY_ADDR = "", "Not supported yet: where the agent answers DNS requests.";
    FILE_MOUNTED_CERTS = "false", "Not supported yet: certificates come from files.";
    PROV_CERT = "", "Not supported yet: directory with a certificate for the CA.";
    OUTPUT_CERTS = "", "Not supported yet: directory for key and certificates.";
    CA_PROVIDER = "Citadel", "Kind of the CA; others than Citadel are not supported yet.";
    PILOT_CERT_PROVIDER = "istiod", "Where istiod's certificate comes from; custom is not supported yet.";
    CREDENTIAL_FETCHER_TYPE = "JWT", "Kind of the token; others than JWT are not supported yet.";
    JWT_POLICY = "third-party-jwt", "Kind of the JWT; others than third-party-jwt are not supported yet.";
    XDS_AUTH_PROVIDER = "", "Not supported yet: another source of tokens for xDS.";
    PROXY_CONFIG_XDS_AGENT = "false", "Not supported yet: more roots come over xDS.";
    ENVOY_SECURE_METRICS_PORT = "0", "Not supported yet: port of Envoy's metrics over mutual TLS.";
    ENVOY_SECURE_MERGED_METRICS_PORT = "0", "Not supported yet: port of merged metrics over mutual TLS.";
    ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL = "false", "Not supported yet: readiness probes come with the PROXY protocol.";
    GRPC_XDS_BOOTSTRAP = "", "Not supported yet: bootstrap file for gRPC without a proxy.";
    ISTIO_KUBE_APP_PROBERS = "", "Not supported yet: probes of the application that pass through the agent.";
    ISTIO_PROMETHEUS_ANNOTATIONS = "", "Not supported yet: metrics of the application that are merged.";
    ISTIO_META_ENABLE_HBONE = "false", "Not supported yet: tunnels between proxies.";
    ISTIO_META_ENABLE_SELF_DISCOVERY = "false", "Not supported yet: Envoy learns of its own cluster.";
    PEER_METADATA_DISCOVERY = "false", "Not supported yet: metadata of peers come over xDS.";
    COMPLIANCE_POLICY = "", "Not supported yet: restricts cryptography.";
    CLOUD_PLATFORM = "none", "Not supported yet: whose metadata server tells the locality.";
    ISTIO_DUAL_STACK = "false", "Not supported yet: Envoy's own ports are of both address families.";
    WASM_INSECURE_REGISTRIES = "", "Not supported yet: registries of Wasm modules.";
}

/// Prefix of variables that become node metadata.
pub const META: &str = "ISTIO_META_";
/// Prefix of variables that hold JSON objects for the node metadata.
pub const META_JSON: &str = "ISTIO_METAJSON_";
/// Prefix of variables that become headers of calls to the CA.
pub const CA_HEADER: &str = "CA_HEADER_";
/// Prefix of variables that become headers of xDS streams.
pub const XDS_HEADER: &str = "XDS_HEADER_";

/// Reads variables and remembers every error.
#[derive(Debug)]
pub struct Reader<'a> {
    env: &'a BTreeMap<String, String>,
    metadata: &'a BTreeMap<String, String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of `env`, with `metadata` for what is not set there.
    #[must_use]
    pub fn new(env: &'a BTreeMap<String, String>, metadata: &'a BTreeMap<String, String>) -> Self {
        Self { env, metadata, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The errors so far.
    #[must_use]
    pub fn into_errors(self) -> Vec<String> {
        self.errors
    }

    /// The text of a variable, or its default.
    #[must_use]
    pub fn text(&self, variable: Variable) -> &'a str {
        self.set(variable).unwrap_or(variable.default)
    }

    /// The text of a variable if it is set to something.
    #[must_use]
    pub fn set(&self, variable: Variable) -> Option<&'a str> {
        let value = self.env.get(variable.name).or_else(|| self.metadata.get(variable.name));
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables with that prefix, without it; the environment wins.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (name, value) in self.metadata.iter().chain(self.env) {
            if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                found.insert(rest.to_owned(), value.clone());
            }
        }
        found
    }

    /// Notes something that is worth knowing and keeps nothing from working.
    pub fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The warnings so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Notes an error of another source.
    pub fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    /// The value of a variable; its default when it cannot be read, with an error noted.
    pub fn parse<T>(&mut self, variable: Variable, expected: &str) -> T
    where
        T: FromStr + Default,
    {
        self.parse_with(variable, expected, |text| text.parse().ok())
    }

    /// The same with a parser of one's own.
    pub fn parse_with<T: Default>(
        &mut self,
        variable: Variable,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let text = self.text(variable);
        if let Some(value) = parse(text) {
            return value;
        }
        self.invalid(variable, text, expected);
        parse(variable.default).unwrap_or_default()
    }

    /// Notes that a variable has an unusable value.
    pub fn invalid(&mut self, variable: Variable, value: &str, expected: impl fmt::Display) {
        self.errors.push(format!("{}={value:?}: expected {expected}", variable.name));
    }

    /// A boolean.
    pub fn flag(&mut self, variable: Variable) -> bool {
        self.parse_with(variable, "true or false", |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    /// A length of time.
    pub fn duration(&mut self, variable: Variable) -> Duration {
        self.parse_with(variable, "a duration such as 30s, 10m or 24h", |text| {
            text.parse::<proto::wkt::Duration>().ok()?.to_std()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_environment_wins_over_proxy_metadata() {
        let env = map(&[("SECRET_TTL", "1h"), ("ISTIO_META_A", "env")]);
        let metadata = map(&[
            ("SECRET_TTL", "2h"),
            ("TRUST_DOMAIN", "td"),
            ("ISTIO_META_A", "x"),
            ("ISTIO_META_B", "y"),
        ]);
        let mut reader = Reader::new(&env, &metadata);
        assert_eq!(reader.duration(SECRET_TTL), Duration::from_secs(3600));
        assert_eq!(reader.text(TRUST_DOMAIN), "td");
        assert_eq!(reader.text(POD_NAMESPACE), "default");
        assert_eq!(reader.with_prefix(META), map(&[("A", "env"), ("B", "y")]));
        assert!(reader.into_errors().is_empty());
    }

    #[test]
    fn errors_name_variable_value_and_fix() {
        let env = map(&[("SECRET_TTL", "soon"), ("DISABLE_ENVOY", "maybe")]);
        let none = BTreeMap::new();
        let mut reader = Reader::new(&env, &none);
        assert_eq!(reader.duration(SECRET_TTL), Duration::from_secs(86400));
        assert!(!reader.flag(DISABLE_ENVOY));
        let errors = reader.into_errors();
        assert_eq!(errors[0], "SECRET_TTL=\"soon\": expected a duration such as 30s, 10m or 24h");
        assert_eq!(errors[1], "DISABLE_ENVOY=\"maybe\": expected true or false");
    }

    #[test]
    fn every_default_is_readable() {
        let none = BTreeMap::new();
        let mut reader = Reader::new(&none, &none);
        for variable in [SECRET_TTL, MINIMUM_DRAIN_DURATION] {
            reader.duration(variable);
        }
        for variable in [ISTIO_DELTA_XDS, DISABLE_ENVOY, EXIT_ON_ZERO_ACTIVE_CONNECTIONS] {
            reader.flag(variable);
        }
        assert!(reader.into_errors().is_empty());
        assert!(ALL.iter().all(|variable| !variable.doc.is_empty()));
    }
}
