//! How requests are spread over endpoints.

use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use proto::envoy::config::cluster::v3::cluster::{
    DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use proto::envoy::config::core::v3::RuntimeDouble;
use proto::envoy::r#type::v3::Percent;
use proto::istio::networking::v1alpha3::load_balancer_settings::consistent_hash_lb::HashAlgorithm;
use proto::istio::networking::v1alpha3::load_balancer_settings::{
    ConsistentHashLb, LbPolicy as Balancer, SimpleLb,
};
use proto::istio::networking::v1alpha3::{LoadBalancerSettings, WarmupConfiguration};

use super::draft::Draft;
use super::policy::Policy;
use super::{of_type, utilization};
use crate::generate::endpoint::Setting;
use crate::generate::message::time;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::Service;

/// Entries of a hash ring unless a rule says how many: Envoy's own default.
const RING_SIZE: u64 = 1024;
/// Runtime key of slow start, which Envoy wants; nothing is read by it.
const NO_KEY: &str = "(";

/// Applies the settings to an outbound cluster.
pub(super) fn apply(
    scope: Scope<'_>,
    service: &Service,
    protocol: Protocol,
    draft: &mut Draft,
    policy: &Policy<'_>,
) {
    let settings = policy.load_balancer;
    if draft.is_dynamic() {
        return;
    }
    let common = draft.cluster.common_lb_config.get_or_insert_default();
    if scope.snapshot.settings.features.auto_send_unhealthy_endpoints
        || super::sends_unhealthy(scope, service)
    {
        // Unready endpoints are sent too, and must never get requests.
        common.healthy_panic_threshold.get_or_insert_with(Percent::default);
    }
    set_locality(scope, service, &mut draft.cluster, policy);
    if draft.is_original() {
        draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
        return;
    }
    let cluster = &mut draft.cluster;
    if protocol == Protocol::Redis && scope.snapshot.settings.features.redis_filter {
        // Keys stay with their shard.
        cluster.lb_policy = LbPolicy::Maglev.into();
        return;
    }
    let simple = match settings.and_then(|settings| settings.lb_policy.as_ref()) {
        Some(Balancer::Simple(simple)) => SimpleLb::try_from(*simple).unwrap_or(SimpleLb::Unspecified),
        _ => SimpleLb::Unspecified,
    };
    match simple {
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random.into(),
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            cluster.lb_config = slow_start(settings).map(|slow| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow) })
            });
        }
        SimpleLb::Passthrough => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cluster_discovery_type = of_type(DiscoveryType::OriginalDst);
            cluster.load_assignment = None;
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.lb_config = slow_start(settings).map(|slow| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
    }
    spread_by_hash(cluster, policy);
    if let Some(Balancer::BackendUtilization(wanted)) =
        settings.and_then(|settings| settings.lb_policy.as_ref())
    {
        utilization::set(cluster, wanted, slow_start(settings));
    }
}

/// Lets requests of one hash go to one endpoint, where the settings say so.
pub(in crate::generate) fn spread_by_hash(cluster: &mut Cluster, policy: &Policy<'_>) {
    let balancer = policy.load_balancer.and_then(|settings| settings.lb_policy.as_ref());
    if let Some(Balancer::ConsistentHash(hash)) = balancer {
        set_hash(cluster, hash);
    }
}

fn set_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    match &hash.hash_algorithm {
        Some(HashAlgorithm::Maglev(maglev)) => {
            cluster.lb_policy = LbPolicy::Maglev.into();
            let table = MaglevLbConfig { table_size: Some(maglev.table_size) };
            cluster.lb_config = (maglev.table_size > 0).then_some(LbConfig::MaglevLbConfig(table));
        }
        Some(HashAlgorithm::RingHash(ring)) => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            let size = ring.minimum_ring_size;
            cluster.lb_config = (size > 0).then(|| ring_of(size));
        }
        None => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            let size = if hash.minimum_ring_size > 0 { hash.minimum_ring_size } else { RING_SIZE };
            cluster.lb_config = Some(ring_of(size));
        }
    }
}

fn ring_of(size: u64) -> LbConfig {
    LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(size),
        ..RingHashLbConfig::default()
    })
}

/// How a new endpoint comes to its full share.
fn slow_start(settings: Option<&LoadBalancerSettings>) -> Option<SlowStartConfig> {
    let settings = settings?;
    if let Some(WarmupConfiguration { duration, minimum_percent, aggression }) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: time(*duration),
            aggression: Some(RuntimeDouble {
                default_value: aggression.as_ref().map_or(1.0, |value| value.value),
                runtime_key: NO_KEY.into(),
            }),
            min_weight_percent: Some(Percent {
                value: minimum_percent.as_ref().map_or(10.0, |value| value.value),
            }),
        });
    }
    let window = time(settings.warmup_duration_secs)?;
    Some(SlowStartConfig { slow_start_window: Some(window), ..SlowStartConfig::default() })
}

/// Weights of localities count only where somebody sets them: they would
/// change how least-request balancing works.
fn set_locality(scope: Scope<'_>, service: &Service, cluster: &mut Cluster, policy: &Policy<'_>) {
    let weighted = || LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default());
    let specifier = match Setting::of(scope, service, policy) {
        None | Some(Setting::Locality(None)) => None,
        Some(Setting::Preferred(_)) => Some(weighted()),
        Some(Setting::Locality(Some(setting))) => {
            let fails_over = cluster.outlier_detection.is_some()
                && !(setting.failover.is_empty() && setting.failover_priority.is_empty());
            (fails_over || !setting.distribute.is_empty()).then(weighted)
        }
        Some(Setting::ZoneAware(zones)) => {
            let is_off = zones.enabled.as_ref().is_some_and(|enabled| !enabled.value);
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: is_off.then(Percent::default),
                min_cluster_size: zones.min_cluster_size.as_ref().map(|size| u64::from(size.value)),
                ..ZoneAwareLbConfig::default()
            }))
        }
    };
    if let Some(common) = &mut cluster.common_lb_config {
        common.locality_config_specifier = specifier;
    }
}
