//! HTTP and gRPC header names of the wire contract.

/// gRPC metadata that names the caller's cluster (`ClusterID`, lower-cased on the wire).
pub const CLUSTER_ID: &str = "clusterid";
/// Carries `Bearer TOKEN`.
pub const AUTHORIZATION: &str = "authorization";
/// Prefix of the token in [`AUTHORIZATION`].
pub const BEARER: &str = "Bearer ";
/// The client certificate chain as Envoy forwards it.
pub const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";
