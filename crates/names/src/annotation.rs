//! Annotation keys that agents and the control plane read.

/// ProxyConfig of one pod, as YAML.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Overrides `ProxyConfig.discoveryAddress`.
pub const DISCOVERY_ADDRESS: &str = "sidecar.istio.io/discoveryAddress";
/// Overrides `ProxyConfig.statusPort`.
pub const STATUS_PORT: &str = "status.sidecar.istio.io/port";
/// Extra stats prefixes of a proxy.
pub const STATS_INCLUSION_PREFIXES: &str = "sidecar.istio.io/statsInclusionPrefixes";
/// Extra stats suffixes of a proxy.
pub const STATS_INCLUSION_SUFFIXES: &str = "sidecar.istio.io/statsInclusionSuffixes";
/// Extra stats regexes of a proxy.
pub const STATS_INCLUSION_REGEXPS: &str = "sidecar.istio.io/statsInclusionRegexps";
/// Extra tags of a proxy's stats.
pub const EXTRA_STAT_TAGS: &str = "sidecar.istio.io/extraStatTags";
/// Limits of histogram buckets by prefix, a JSON object.
pub const STATS_HISTOGRAM_BUCKETS: &str = "sidecar.istio.io/statsHistogramBuckets";
/// Time between two flushes of stats.
pub const STATS_FLUSH_INTERVAL: &str = "sidecar.istio.io/statsFlushInterval";
/// Time after which unused stats are dropped.
pub const STATS_EVICTION_INTERVAL: &str = "sidecar.istio.io/statsEvictionInterval";
/// Interfaces whose traffic is not captured.
pub const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
/// Visibility of a Service.
pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// WorkloadGroup that a WorkloadEntry was made from.
pub const AUTO_REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";
/// Preference among endpoints, on a Service, ServiceEntry or Namespace.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// How Envoy connects to the addresses that DNS gives for a ServiceEntry.
pub const CONNECT_STRATEGY: &str = "istio.io/connect-strategy";
/// Further identities of a Service's workloads.
pub const CANONICAL_SERVICE_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";
/// Further service accounts of a Service's workloads.
pub const KUBERNETES_SERVICE_ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";
/// `true` on a WorkloadEntry that counts only while its health check passes.
pub const HEALTH_CHECKS: &str = "proxy.istio.io/health-checks-enabled";
/// Name by which collectors of traces know the pod (OpenTelemetry).
pub const OTEL_SERVICE_NAME: &str = "resource.opentelemetry.io/service.name";
