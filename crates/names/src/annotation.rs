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
/// Labels of the nodes by whose ports a Service is reached from other networks, JSON.
pub const NODE_SELECTOR: &str = "traffic.istio.io/nodeSelector";
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
/// Whether a pod gets a sidecar; the label of the same name wins.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// Templates that are injected, separated by commas.
pub const INJECT_TEMPLATES: &str = "inject.istio.io/templates";
/// What was injected, JSON; injecting again begins with taking it away.
pub const INJECTION_STATUS: &str = "sidecar.istio.io/status";
/// Containers of the user that have a name of the injector's, JSON.
pub const PROXY_OVERRIDES: &str = "proxy.istio.io/overrides";
/// Revision of the control plane that injected the pod.
pub const INJECTED_REVISION: &str = "istio.io/rev";
/// `REDIRECT`, `TPROXY` or `NONE`.
pub const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
/// Whether the sidecar is an init container that is restarted.
pub const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
/// Whether the proxy may bind ports below 1024.
pub const CAP_NET_BIND_SERVICE: &str = "sidecar.istio.io/capNetBindService";
/// Requested CPU of the proxy.
pub const PROXY_CPU: &str = "sidecar.istio.io/proxyCPU";
/// Requested memory of the proxy.
pub const PROXY_MEMORY: &str = "sidecar.istio.io/proxyMemory";
/// Limit of the proxy's CPU.
pub const PROXY_CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
/// Limit of the proxy's memory.
pub const PROXY_MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
/// Image of the proxy.
pub const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
/// Variant of the proxy's image: `default`, `debug`, `distroless`.
pub const PROXY_IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
/// Level of Envoy's log.
pub const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
/// Levels of the parts of Envoy's log.
pub const COMPONENT_LOG_LEVEL: &str = "sidecar.istio.io/componentLogLevel";
/// Levels of the agent's log.
pub const AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";
/// Whether probes of the application go through the agent.
pub const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// Seconds before the proxy is asked whether it is ready.
pub const READINESS_INITIAL_DELAY: &str = "readiness.status.sidecar.istio.io/initialDelaySeconds";
/// Seconds between two of these questions.
pub const READINESS_PERIOD: &str = "readiness.status.sidecar.istio.io/periodSeconds";
/// How many of them may fail.
pub const READINESS_FAILURES: &str = "readiness.status.sidecar.istio.io/failureThreshold";
/// Further volumes of the pod, JSON.
pub const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
/// Further mounts of the proxy, JSON.
pub const USER_VOLUME_MOUNT: &str = "sidecar.istio.io/userVolumeMount";
/// ConfigMap with a bootstrap of the user's.
pub const BOOTSTRAP_OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
/// Inbound ports that are captured.
pub const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Inbound ports that are not captured.
pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Outbound ports that are captured.
pub const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
/// Outbound ports that are not captured.
pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
/// Networks to which traffic is captured.
pub const INCLUDE_OUTBOUND_IP_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
/// Networks to which traffic is not captured.
pub const EXCLUDE_OUTBOUND_IP_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
/// Interfaces of virtual machines, older name.
pub const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";
/// Interfaces of virtual machines.
pub const REROUTE_VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Whether the agent merges the application's metrics with its own.
pub const PROMETHEUS_MERGE: &str = "prometheus.istio.io/merge-metrics";
/// Port of the merged metrics over TLS.
pub const PROMETHEUS_SECURE_PORT: &str = "prometheus.istio.io/secure-port";
/// Container whose logs `kubectl` shows.
pub const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";
/// Container in which `kubectl` runs commands.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Networks that the CNI plugin Multus attaches.
pub const MULTUS_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// The control plane that the proxy of a WorkloadEntry is connected to.
pub const WORKLOAD_CONTROLLER: &str = "istio.io/workloadController";
/// When the proxy of a WorkloadEntry has connected, RFC 3339.
pub const CONNECTED_AT: &str = "istio.io/connectedAt";
/// When the proxy of a WorkloadEntry has left, RFC 3339.
pub const DISCONNECTED_AT: &str = "istio.io/disconnectedAt";
/// `short`: the proxy has this project's module and reads the short form of peer metadata.
pub const PEER_METADATA: &str = "sidecar.istio.io/peerMetadata";
/// The value of [`PEER_METADATA`].
pub const PEER_METADATA_SHORT: &str = "short";
