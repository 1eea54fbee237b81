//! What translation depends on besides the objects: settings of the mesh and of
//! the control plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh::{MeshConfig, MeshNetworks};
use names::label;

/// Switches of the control plane, each named as the environment variable of
/// Istio that sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `ISTIO_DUAL_STACK`: listeners and clusters for both families of addresses.
    pub dual_stack: bool,
    /// `PILOT_SEND_UNHEALTHY_ENDPOINTS`: endpoints that are not ready are sent as unhealthy.
    pub send_unhealthy_endpoints: bool,
    /// `PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS`: the same, except where a
    /// DestinationRule's `minHealthPercent` would have Envoy use them after all.
    pub auto_send_unhealthy_endpoints: bool,
    /// `PILOT_ENABLE_IP_AUTOALLOCATE`: hosts of ServiceEntries without address get one.
    pub ip_autoallocate: bool,
    /// `PILOT_ENABLE_MONGO_FILTER`: MongoDB's statistics.
    pub mongo_filter: bool,
    /// `PILOT_ENABLE_MYSQL_FILTER`: MySQL's statistics.
    pub mysql_filter: bool,
    /// `PILOT_ENABLE_REDIS_FILTER`: Redis' statistics.
    pub redis_filter: bool,
    /// `ENABLE_TLS_ON_SIDECAR_INGRESS`: ingress listeners of Sidecars end TLS of their own.
    pub tls_on_sidecar_ingress: bool,
    /// `PILOT_ENABLE_ALPN_FILTER`: requests between sidecars say inside TLS that they are HTTP.
    pub alpn: bool,
    /// `PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS`: policies of one workload may ask several
    /// servers; else requests that any of them is asked about are denied.
    pub multiple_custom_providers: bool,
    /// `PILOT_JWT_ENABLE_REMOTE_JWKS`: who fetches the keys of token issuers.
    pub key_fetch: KeyFetch,
    /// `PILOT_SCOPE_GATEWAY_TO_NAMESPACE`: a Gateway selects proxies of its own namespace only.
    pub scope_gateway_to_namespace: bool,
    /// `PILOT_ENABLE_METADATA_EXCHANGE`: what peers say of themselves in headers is kept from workloads.
    pub metadata_exchange: bool,
    /// `PILOT_ENABLE_PERSISTENT_SESSION_FILTER`: requests of a session go to one endpoint, for
    /// services whose labels say so.
    pub persistent_sessions: bool,
    /// Labels that say so.
    pub session_labels: SessionLabels,
    /// `PILOT_ENABLE_QUIC_LISTENERS`: gateways offer HTTP/3 beside HTTPS.
    pub quic_listeners: bool,
    /// `PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS`: hosts that a proxy keeps the addresses of, of those
    /// that no service names.
    pub dynamic_dns_max_hosts: u32,
    /// `RESOLVE_HOSTNAME_GATEWAYS`: gateways of networks may have host names, whose addresses are looked up.
    pub resolve_gateway_names: bool,
    /// `PILOT_SKIP_VALIDATE_TRUST_DOMAIN`: peers of any trust domain whose roots are known are let in.
    pub skip_trust_domain: bool,
    /// `PILOT_TRACE_SAMPLING`: requests that begin a trace where nothing else says how many.
    pub trace_sampling: Percentage,
}

/// Names of labels about sessions; an empty one is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLabels {
    /// `PILOT_PERSISTENT_SESSION_LABEL`, of services: the cookie that tells sessions apart,
    /// `NAME` or `NAME:PATH`.
    pub cookie: String,
    /// `PILOT_PERSISTENT_SESSION_HEADER_LABEL`, of services: the header that does.
    pub header: String,
    /// `PILOT_DRAINING_LABEL`, of workloads: they take no new sessions.
    pub draining: String,
}

impl Default for SessionLabels {
    fn default() -> Self {
        Self {
            cookie: label::PERSISTENT_SESSION.into(),
            header: label::PERSISTENT_SESSION_HEADER.into(),
            draining: label::DRAINING.into(),
        }
    }
}

impl SessionLabels {
    /// The cookie of a service with these labels.
    #[must_use]
    pub fn cookie<'a>(&self, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
        value(labels, &self.cookie)
    }

    /// The header of a service with these labels.
    #[must_use]
    pub fn header<'a>(&self, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
        value(labels, &self.header)
    }

    /// Whether a service with these labels has sessions, which draining endpoints go on with.
    #[must_use]
    pub fn has_sessions(&self, labels: &BTreeMap<String, String>) -> bool {
        self.cookie(labels).or_else(|| self.header(labels)).is_some()
    }

    /// Whether a workload with these labels takes no new sessions.
    #[must_use]
    pub fn is_draining(&self, labels: &BTreeMap<String, String>) -> bool {
        value(labels, &self.draining).is_some()
    }
}

fn value<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    labels.get(name).map(String::as_str).filter(|value| !name.is_empty() && !value.is_empty())
}

/// A percentage, with four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentage(u32);

impl Percentage {
    /// One of `0.0` to `100.0`.
    #[must_use]
    pub fn new(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 10_000.0).round() as u32))
    }

    /// The percentage.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// Who fetches the keys of token issuers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFetch {
    /// The control plane.
    #[default]
    Istiod,
    /// Envoy from servers of the mesh, the control plane from others.
    Hybrid,
    /// Envoy.
    Envoy,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            dual_stack: false,
            send_unhealthy_endpoints: false,
            auto_send_unhealthy_endpoints: true,
            ip_autoallocate: true,
            mongo_filter: true,
            mysql_filter: false,
            redis_filter: false,
            tls_on_sidecar_ingress: false,
            alpn: true,
            multiple_custom_providers: false,
            key_fetch: KeyFetch::Istiod,
            scope_gateway_to_namespace: false,
            metadata_exchange: true,
            persistent_sessions: false,
            session_labels: SessionLabels::default(),
            quic_listeners: false,
            dynamic_dns_max_hosts: 1024,
            resolve_gateway_names: true,
            skip_trust_domain: false,
            trace_sampling: Percentage(10_000),
        }
    }
}

/// Key sets of token issuers as JSON, by the URI that [`crate::snapshot::jwt::key_uri`] says.
pub type KeySets = BTreeMap<String, String>;

/// Addresses by host name, of those that [`crate::snapshot::network::names`] says; none is empty.
pub type GatewayNames = BTreeMap<String, Vec<IpAddr>>;

/// Settings of translation; cheap to clone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of the mesh.
    pub mesh: Arc<MeshConfig>,
    /// Networks of the mesh.
    pub networks: Arc<MeshNetworks>,
    /// Addresses of gateways that are known by host names, as far as they are known.
    pub gateway_names: Arc<GatewayNames>,
    /// Name of this cluster.
    pub cluster_id: Arc<str>,
    /// Domain of the cluster's services.
    pub domain: Arc<str>,
    /// Switches.
    pub features: Features,
    /// Key sets of token issuers.
    pub key_sets: Arc<KeySets>,
    /// Variables of istiod's environment that headers for collectors of traces are taken from.
    pub variables: Arc<BTreeMap<String, String>>,
}

impl Settings {
    /// Settings with every switch at its default.
    #[must_use]
    pub fn new(mesh: Arc<MeshConfig>, cluster_id: &str) -> Self {
        Self {
            mesh,
            networks: Arc::default(),
            gateway_names: Arc::default(),
            cluster_id: cluster_id.into(),
            domain: "cluster.local".into(),
            features: Features::default(),
            key_sets: Arc::default(),
            variables: Arc::default(),
        }
    }
}
