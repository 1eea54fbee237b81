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
