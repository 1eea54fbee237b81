//! The table of all variables. Help text and documentation are made from it.

use super::Variable;

/// Variables that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The variables.
    pub variables: &'static [Variable],
}

macro_rules! variables {
    ($($title:literal { $($id:ident = $default:literal, $doc:literal;)* })*) => {
        $($(
            #[doc = $doc]
            pub const $id: Variable = Variable { name: stringify!($id), default: $default, doc: $doc };
        )*)*
        /// All of them, by subject.
        pub const GROUPS: &[Group] = &[$(Group { title: $title, variables: &[$($id),*] }),*];
    };
}

variables! {
    "Identity of the pod" {
        POD_NAME = "", "Name of the pod.";
        POD_NAMESPACE = "default", "Namespace of the pod.";
        INSTANCE_IP = "", "First address of the pod; the addresses of its interfaces follow.";
        SERVICE_ACCOUNT = "default", "Service account of the pod.";
        HOST_IP = "", "Address of the node.";
        TRUST_DOMAIN = "cluster.local", "Trust domain of the mesh.";
        ISTIO_META_CLUSTER_ID = "", "Cluster that the pod is in, a name that istiod knows.";
        ISTIO_CPU_LIMIT = "0", "CPUs that the container may use; the number of Envoy's threads when nothing else sets it.";
        PROXY_CONFIG = "", "ProxyConfig, YAML or JSON, over the mesh's defaults.";
    }
    "Certificates" {
        CA_ADDR = "", "HOST:PORT of the CA; the discovery address when empty.";
        CA_ROOT_CA = "", "File with the roots that authenticate the CA, or SYSTEM for those that the system trusts; wins over PILOT_CERT_PROVIDER, PROV_CERT and ./var/run/secrets/istio/root-cert.pem.";
        SECRET_TTL = "24h", "Lifetime of certificates that is asked for.";
        SECRET_GRACE_PERIOD_RATIO = "0.5", "Part of the lifetime that is left when a certificate is renewed.";
        SECRET_GRACE_PERIOD_RATIO_JITTER = "0.01", "Random part of that ratio.";
        WORKLOAD_RSA_KEY_SIZE = "", "Bits of an RSA key; when not set the key is ECDSA.";
        ECC_SIGNATURE_ALGORITHM = "", "ECDSA for an ECDSA key even when an RSA size is set.";
        ECC_CURVE = "P256", "Curve of an ECDSA key: P256 or P384.";
        ISTIO_META_CERT_SIGNER = "", "Signer that the CA is told to use.";
        PKCS8_KEY = "false", "The key is encoded as PKCS#8 instead of PKCS#1 (RSA) or SEC1 (ECDSA).";
        PILOT_ENABLE_CA_CRL = "true", "Certificates that the list in ./var/run/secrets/istio/crl/ca-crl.pem revokes are not accepted; the list may appear and change at any time.";
        FILE_MOUNTED_CERTS = "false", "The workload's certificate comes from ./etc/certs/{cert-chain,key,root-cert}.pem instead of the CA; not together with PROV_CERT.";
        ISTIO_META_TLS_CLIENT_CERT_CHAIN = "", "With FILE_MOUNTED_CERTS: file with the certificate that is shown to istiod.";
        ISTIO_META_TLS_CLIENT_KEY = "", "With FILE_MOUNTED_CERTS: file with its key.";
        ISTIO_META_TLS_CLIENT_ROOT_CERT = "", "With FILE_MOUNTED_CERTS: file with the roots that authenticate istiod.";
        KUBERNETES_SERVICE_HOST = "", "Set by Kubernetes: files of OUTPUT_CERTS may be read by other users (mode 0644, not 0600).";
        PROV_CERT = "", "Directory with key.pem and cert-chain.pem, shown to the CA and to istiod while they are valid, and root-cert.pem, which authenticates them.";
        OUTPUT_CERTS = "", "Directory that key.pem, cert-chain.pem and root-cert.pem of the workload are written to, each time they change.";
        CA_PROVIDER = "Citadel", "Kind of the CA: Citadel (istiod and what speaks like it), or GkeWorkloadCertificate for files that GKE brings; others are refused.";
        PILOT_CERT_PROVIDER = "istiod", "Where istiod's certificate comes from: with custom ./etc/certs/root-cert.pem authenticates the CA, with none there must be CA_ROOT_CA and XDS_ROOT_CA.";
        CREDENTIAL_FETCHER_TYPE = "JWT", "Kind of the token: JWT, from the file ./var/run/secrets/tokens/istio-token; others are refused.";
        CREDENTIAL_IDENTITY_PROVIDER = "", "Accepted without effect: it belongs to a kind of token that is refused.";
        JWT_POLICY = "third-party-jwt", "Without effect, as in Istio: the token is always the one whose audience is istio-ca.";
        WORKLOAD_IDENTITY_SOCKET_FILE = "socket", "Name of the socket in ./var/run/secrets/workload-spiffe-uds that Envoy gets the workload's certificate from. Another name than the default is that of another SDS server, such as SPIRE's agent, which is waited for at the start; where a server is on the default one, it is used as well.";
        FILE_DEBOUNCE_DURATION = "100ms", "Time from the first change of certificates in files until they are read.";
        ISTIO_AGENT_SOCKET_MODE = "", "Mode of the agent's sockets. 0660 admits root, the agent's user and the proxy's (1337); 0666 every process of the pod, as Istio's agent does. When not set, 0660, and 0666 with DISABLE_ENVOY, where applications connect.";
    }
    "xDS" {
        XDS_ROOT_CA = "", "File with the roots that authenticate istiod's xDS, or SYSTEM; wins over ./etc/certs/root-cert.pem, PROV_CERT, ISTIO_META_TLS_CLIENT_ROOT_CERT and ./var/run/secrets/istio/root-cert.pem.";
        ISTIOD_SAN = "", "Name that istiod's certificate must have instead of its host name.";
        ISTIO_DELTA_XDS = "true", "Envoy asks for what has changed only.";
        XDS_AUTH_PROVIDER = "", "Without effect, as in Istio: xDS has the token that the CA gets.";
        PROXY_CONFIG_XDS_AGENT = "false", "Roots of other trust domains come over xDS (caCertificatesPem of a ProxyConfig).";
        GRPC_KEEPALIVE_INTERVAL = "30s", "Time without traffic after which a peer of an xDS stream is asked whether it is alive.";
        GRPC_KEEPALIVE_TIMEOUT = "10s", "Time in which it has to answer.";
        ISTIO_GPRC_MAXSTREAMS = "100", "Streams on the xDS socket at the same time; each has a connection to istiod.";
        ISTIO_GPRC_MAXRECVMSGSIZE = "4194304", "Without effect: xDS messages of any size pass.";
    }
    "Envoy" {
        DISABLE_ENVOY = "false", "Do not start Envoy: gRPC without a proxy, or certificates only.";
        ENVOY_STATUS_PORT = "15021", "Port on which Envoy passes readiness probes on.";
        ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL = "false", "That port understands the PROXY protocol; requests without it are accepted as well.";
        ENVOY_PROMETHEUS_PORT = "15090", "Port of Envoy's own metrics.";
        ENVOY_SECURE_METRICS_PORT = "0", "Port of Envoy's own metrics over mutual TLS with certificates of the mesh; 0 is none.";
        ENVOY_SECURE_MERGED_METRICS_PORT = "0", "Port of the merged metrics of the agent over mutual TLS with certificates of the mesh; 0 is none.";
        ENVOY_SKIP_DEPRECATED_LOGS = "true", "Envoy does not log the use of deprecated settings.";
        ISTIO_BOOTSTRAP = "", "Template of the bootstrap; only the one of Istio's images is accepted, and it stands for the agent's own. Use ISTIO_BOOTSTRAP_OVERRIDE.";
        ISTIO_BOOTSTRAP_OVERRIDE = "", "File, YAML or JSON, that Envoy merges over the bootstrap; $(HOST_IP) in it is the node's address.";
        HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED = "true", "Envoy cuts the fragment off paths.";
        ISTIO_ENVOY_ENABLE_CORE_DUMP = "false", "Envoy writes a core file when it crashes.";
        ISTIO_TELEMETRY_MODULE = "", "File of the name libistio_telemetry.so, or its directory: the module by which Envoy counts Istio's metrics; off for none. When not set, the one beside the agent, in /usr/local/lib/istio or in /usr/lib/istio. An Envoy that does not take it runs without, with a warning.";
        ISTIO_DUAL_STACK = "false", "Ports 15021 and 15090 are of both address families when the pod has addresses of both.";
        ISTIO_META_ENABLE_SELF_DISCOVERY = "false", "Envoy learns of its own cluster, for zone-aware balancing.";
        ISTIO_META_ENABLE_HBONE = "false", "Tunnels between proxies: told to istiod, which sets them up; stock Envoy does not discover the metadata of peers.";
        PEER_METADATA_DISCOVERY = "false", "Metadata of peers come over xDS; an extension that stock Envoy lacks, so true has no effect.";
        COMPLIANCE_POLICY = "", "Restricts cryptography; refused, as neither the agent nor stock Envoy is validated.";
        CLOUD_PLATFORM = "", "Whose metadata server tells platform and locality: aws, azure, gcp or none. When not set, the one that the machine's firmware names, if any.";
        GCP_METADATA = "", "PROJECT_ID|PROJECT_NUMBER|CLUSTER_NAME|CLUSTER_ZONE: told to istiod instead of asking the metadata server.";
        GCP_QUOTA_PROJECT = "", "Project whose quota is used; told to istiod with GCP_METADATA.";
        GCP_ZONE = "", "Zone of the workload; told to istiod with GCP_METADATA.";
    }
    "gRPC without a proxy" {
        GRPC_XDS_BOOTSTRAP = "./etc/istio/proxy/grpc-bootstrap.json", "File with the bootstrap of gRPC's own xDS client, written at the start; empty for none.";
    }
    "End" {
        MINIMUM_DRAIN_DURATION = "5s", "Shortest drain, also when nothing is open; without EXIT_ON_ZERO_ACTIVE_CONNECTIONS never longer than terminationDrainDuration of the ProxyConfig.";
        EXIT_ON_ZERO_ACTIVE_CONNECTIONS = "false", "Drain as long as Envoy counts connections; terminationDrainDuration of the ProxyConfig is the limit if it is longer than the shortest drain and not its default of 5s.";
        ISTIO_AGENT_EXIT_FILE = "", "The agent drains and ends when this file appears, for jobs whose application cannot reach /quitquitquit.";
    }
    "Probes and metrics" {
        METRICS_LOCALHOST_ACCESS_ONLY = "false", "Metrics are for this machine only.";
        ISTIO_KUBE_APP_PROBERS = "", "JSON with the probes of the application that pass through the agent, as injection writes it.";
        REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION = "false", "Probes are sent to localhost instead of to the pod's address.";
        ENABLE_PROBE_KEEPALIVE_CONNECTIONS = "false", "Connections of HTTP probes to the application are kept for the next one.";
        ISTIO_ENABLE_HTTP2_PROBING = "true", "HTTPS probes offer HTTP/2 to the application.";
        ISTIO_PROMETHEUS_ANNOTATIONS = "", "JSON that says where the application has metrics, which are merged with Envoy's and the agent's (sidecars only), as injection writes it.";
        PILOT_AGENT_MERGE_ENVOY_STATS = "true", "Envoy's metrics are merged.";
        ISTIO_AGENT_UNREADY_AFTER_XDS_LOSS = "0s", "The pod counts as not ready when Envoy's xDS stream was lost that long ago; 0 is never.";
    }
    "DNS" {
        ISTIO_META_DNS_CAPTURE = "false", "The agent of a sidecar answers DNS requests, which istio-init redirects to it with --redirect-dns.";
        ISTIO_META_ENABLE_DNS_SERVER = "false", "The agent answers DNS requests, also that of a gateway.";
        DNS_PROXY_ADDR = "localhost:15053", "Where the agent answers DNS requests: IP:PORT, or localhost:PORT for 127.0.0.1 and ::1 by the families of the servers in resolv.conf; port 53 for root only.";
        DNS_FORWARD_PARALLEL = "false", "All servers of resolv.conf are asked at once instead of in turn.";
        DNS_FORWARD_TIMEOUT = "5s", "Longest time for an answer of the servers of resolv.conf.";
    }
    "Wasm modules" {
        ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION = "true", "Remote code of Wasm filters is fetched, and Envoy gets a file.";
        WASM_INSECURE_REGISTRIES = "", "Servers of Wasm modules, HOST or HOST:PORT with commas between them or * for all, whose certificates are not verified and that may speak plain HTTP.";
        WASM_MODULE_EXPIRY = "24h", "A Wasm module that was not asked for in that time is removed.";
        WASM_PURGE_INTERVAL = "1h", "How often such modules are looked for.";
        WASM_HTTP_REQUEST_TIMEOUT = "15s", "Longest time of one HTTP request for a Wasm module.";
        WASM_HTTP_REQUEST_MAX_RETRIES = "5", "Tries of such a request, the first included.";
        ISTIO_WASM_MAX_BINARY_SIZE_BYTES = "268435456", "Largest Wasm module, packed and unpacked.";
        BLOCKED_CIDRS_IN_WASM_FETCH = "", "Networks that no Wasm module is fetched from, with commas between them; link-local addresses and metadata servers of clouds are always among them.";
        DOCKER_CONFIG = "", "Directory with a config.json of docker: credentials of registries for Wasm modules without imagePullSecret.";
        HOME = "", "Directory with .docker/config.json, which is used when DOCKER_CONFIG has none.";
        REGISTRY_AUTH_FILE = "", "Such a file as podman names it, used after those.";
        SSL_CERT_FILE = "", "Roots that servers of Wasm modules are verified by instead of by those of the system.";
    }
}
