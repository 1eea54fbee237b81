//! Connection pools, circuit breakers and retry budgets.

use mesh::MeshConfig;
use proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use proto::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use proto::envoy::config::core::v3::{KeepaliveSettings, TcpKeepalive};
use proto::envoy::r#type::v3::Percent;
use proto::istio::mesh::v1alpha1::mesh_config::H2UpgradePolicy as MeshUpgrade;
use proto::istio::networking::v1alpha3::connection_pool_settings::http_settings::H2UpgradePolicy;
use proto::istio::networking::v1alpha3::connection_pool_settings::tcp_settings;
use proto::istio::networking::v1alpha3::{ConnectionPoolSettings, traffic_policy};

use super::draft::Draft;
use crate::generate::message::{time, time_over_zero};
use crate::protocol::Protocol;

/// Envoy's defaults are low enough to break a mesh; no limit unless a
/// DestinationRule sets one.
fn unlimited() -> Thresholds {
    Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Thresholds::default()
    }
}

/// A number that limits something; 0 is "not set".
fn limit(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// Whether all requests travel over HTTP/2 though the port does not say so.
pub(in crate::generate) fn upgrades_to_http2(
    pool: Option<&ConnectionPoolSettings>,
    mesh: &MeshConfig,
    protocol: Protocol,
) -> bool {
    if let Some(http) = pool.and_then(|pool| pool.http.as_ref()) {
        if http.use_client_protocol {
            return false;
        }
        match http.h2_upgrade_policy() {
            H2UpgradePolicy::Upgrade => return true,
            H2UpgradePolicy::DoNotUpgrade => return false,
            H2UpgradePolicy::Default => {}
        }
    }
    // Without a word from the rule only a port that says HTTP is known to be it.
    protocol.is_http() && mesh.h2_upgrade_policy() == MeshUpgrade::Upgrade
}

/// Applies a pool's settings, and those of the mesh for every cluster.
pub(super) fn apply(
    draft: &mut Draft,
    mesh: &MeshConfig,
    pool: Option<&ConnectionPoolSettings>,
    budget: Option<&traffic_policy::RetryBudget>,
) {
    let (tcp, http) = (pool.and_then(|pool| pool.tcp.as_ref()), pool.and_then(|pool| pool.http.as_ref()));
    let mut thresholds = unlimited();
    thresholds.retry_budget = budget.map(retry_budget);
    if let Some(http) = http {
        let set = |number: i32, before: Option<u32>| limit(number).or(before);
        thresholds.max_requests = set(http.http2_max_requests, thresholds.max_requests);
        thresholds.max_pending_requests =
            set(http.http1_max_pending_requests, thresholds.max_pending_requests);
        thresholds.max_retries = set(http.max_retries, thresholds.max_retries);
    }
    if let Some(tcp) = tcp {
        thresholds.max_connections = limit(tcp.max_connections).or(thresholds.max_connections);
        draft.cluster.connect_timeout = time_over_zero(tcp.connect_timeout).or(draft.cluster.connect_timeout);
    }
    draft.cluster.circuit_breakers =
        Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() });
    let own = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref());
    for keepalive in [mesh.tcp_keepalive.as_ref(), own].into_iter().flatten() {
        set_keepalive(&mut draft.cluster, keepalive);
    }

    let idle_timeout =
        http.and_then(|http| http.idle_timeout).or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let requests = http.and_then(|http| limit(http.max_requests_per_connection));
    let streams = http.and_then(|http| limit(http.max_concurrent_streams));
    let duration = tcp.and_then(|tcp| tcp.max_connection_duration);
    let pings = http.and_then(|http| http.http2_keep_alive.as_ref());
    let is_set = idle_timeout.is_some()
        || requests.is_some()
        || streams.is_some()
        || duration.is_some()
        || pings.is_some();
    if is_set {
        let common = draft.options().common_http_protocol_options.get_or_insert_default();
        common.idle_timeout = time(idle_timeout).or(common.idle_timeout);
        common.max_requests_per_connection = requests.or(common.max_requests_per_connection);
        common.max_connection_duration = time(duration).or(common.max_connection_duration);
        if let Some(http2) = draft.http2() {
            http2.max_concurrent_streams = streams.or(http2.max_concurrent_streams);
            if let Some(pings) = pings {
                http2.connection_keepalive = Some(KeepaliveSettings {
                    interval: pings.interval.map(Into::into),
                    timeout: pings.timeout.map(Into::into),
                    ..KeepaliveSettings::default()
                });
            }
        }
    }
    if http.is_some_and(|http| http.use_client_protocol) {
        draft.set_downstream();
    }
}

fn retry_budget(budget: &traffic_policy::RetryBudget) -> RetryBudget {
    /// Share of active requests that may be retries, and how many may always be.
    const DEFAULTS: (f64, u32) = (20.0, 3);
    RetryBudget {
        budget_percent: Some(Percent {
            value: budget.percent.as_ref().map_or(DEFAULTS.0, |percent| percent.value),
        }),
        budget_interval: time(budget.budget_interval),
        min_retry_concurrency: Some(match budget.min_retry_concurrency {
            0 => DEFAULTS.1,
            number => number,
        }),
    }
}

/// Sets what is given, and leaves the rest as it is.
fn set_keepalive(cluster: &mut Cluster, keepalive: &tcp_settings::TcpKeepalive) {
    let seconds = |duration: Option<proto::wkt::Duration>| {
        duration.and_then(|duration| u32::try_from(duration.seconds).ok())
    };
    let options = cluster.upstream_connection_options.get_or_insert_with(UpstreamConnectionOptions::default);
    let made: &mut TcpKeepalive = options.tcp_keepalive.get_or_insert_default();
    made.keepalive_probes = (keepalive.probes > 0).then_some(keepalive.probes).or(made.keepalive_probes);
    made.keepalive_time = seconds(keepalive.time).or(made.keepalive_time);
    made.keepalive_interval = seconds(keepalive.interval).or(made.keepalive_interval);
}
