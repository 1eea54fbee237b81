//! Label keys that the control plane reads or writes.

/// `istio` on an endpoint that accepts Istio mutual TLS.
pub const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Value of [`TLS_MODE`] for a workload with a sidecar.
pub const TLS_MODE_ISTIO: &str = "istio";
/// Name of the service that an EndpointSlice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Canonical service of a workload.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Canonical revision of a workload.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Sub-zone of a node.
pub const SUB_ZONE: &str = "topology.istio.io/subzone";
/// Locality override on a pod, `region.zone.subzone`.
pub const LOCALITY: &str = "istio-locality";
/// Network of a workload.
pub const NETWORK: &str = "topology.istio.io/network";
/// Control plane revision.
pub const REVISION: &str = "istio.io/rev";
/// Locality of a workload, before [`LOCALITY`].
pub const TOPOLOGY_LOCALITY: &str = "topology.istio.io/locality";
/// Cluster of a workload; the control plane sets it on endpoints.
pub const CLUSTER: &str = "topology.istio.io/cluster";
/// Node of a workload; the control plane sets it on endpoints.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Name of a workload, before the name of what owns the pod.
pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Port of a service that is the gateway of its [`NETWORK`].
pub const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
/// `false` on a ServiceEntry whose hosts get no address.
pub const AUTO_ALLOCATE_IP: &str = "networking.istio.io/enable-autoallocate-ip";
/// Cookie of a service with persistent sessions.
pub const PERSISTENT_SESSION: &str = "istio.io/persistent-session";
/// Header of a service with persistent sessions.
pub const PERSISTENT_SESSION_HEADER: &str = "istio.io/persistent-session-header";
/// Set on a workload that takes no new sessions.
pub const DRAINING: &str = "istio.io/draining";
/// On a service whose ports are not those of the gateways behind it.
pub const NO_GATEWAY_PORTS: &str = "experimental.istio.io/disable-gateway-port-translation";
/// Whether a pod gets a sidecar.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// `enabled` on a namespace whose pods get sidecars of the default revision.
pub const INJECTION: &str = "istio-injection";
/// Protocol of tunnels that a workload accepts.
pub const TUNNEL: &str = "networking.istio.io/tunnel";
/// Name of an application, by which Kubernetes' tools know it.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Version of an application, by which Kubernetes' tools know it.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
