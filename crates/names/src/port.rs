//! Ports that the mesh reserves (Istio's documented port table).

/// Envoy's admin interface, loopback only.
pub const ENVOY_ADMIN: u16 = 15000;
/// Envoy's listener for redirected outbound connections (`virtualOutbound`).
pub const OUTBOUND: u16 = 15001;
/// The port that redirection probes dial; nothing listens there.
pub const IPTABLES_PROBE: u16 = 15002;
/// Envoy's listener for redirected inbound connections (`virtualInbound`).
pub const INBOUND: u16 = 15006;
/// HBONE tunnels; reserved, never redirected.
pub const INBOUND_TUNNEL: u16 = 15008;
/// istiod's plaintext xDS port; opened only when asked for.
pub const ISTIOD_PLAINTEXT: u16 = 15010;
/// istiod's xDS and CA port, TLS.
pub const ISTIOD_TLS: u16 = 15012;
/// istiod's metrics and debug port, plaintext HTTP.
pub const ISTIOD_MONITORING: u16 = 15014;
/// istiod's webhooks, HTTPS.
pub const ISTIOD_WEBHOOK: u16 = 15017;
/// istiod's readiness and debug port, plaintext HTTP.
pub const ISTIOD_HTTP: u16 = 8080;
/// The agent's status server: readiness, merged metrics, probes.
pub const AGENT_STATUS: u16 = 15020;
/// Envoy's listener that forwards `/healthz/ready` to the agent.
pub const ENVOY_HEALTH: u16 = 15021;
/// The agent's DNS proxy.
pub const AGENT_DNS: u16 = 15053;
/// Envoy's listener for its own Prometheus metrics.
pub const ENVOY_PROMETHEUS: u16 = 15090;

/// User and group id of the proxy; its traffic is never redirected.
pub const PROXY_UID: u32 = 1337;
