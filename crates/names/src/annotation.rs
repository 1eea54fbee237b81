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
/// Interfaces whose traffic is not captured.
pub const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
/// Visibility of a Service.
pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
