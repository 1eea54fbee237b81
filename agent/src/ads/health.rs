//! Health of the workload as it is told to istiod.

/// What the application's own readiness probe says (machines outside of
/// Kubernetes, `readinessProbe` of the ProxyConfig).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may get traffic.
    Healthy,
    /// It may not, for that reason.
    Unhealthy(String),
}
