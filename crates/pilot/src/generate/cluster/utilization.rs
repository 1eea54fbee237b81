//! Endpoints weighed by the load that they report with their responses (ORCA).

use proto::Any;
use proto::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use proto::envoy::config::cluster::v3::cluster::{LbPolicy, SlowStartConfig};
use proto::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy, load_balancing_policy};
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use proto::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig as SlowStart;
use proto::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use proto::istio::networking::v1alpha3::load_balancer_settings::BackendUtilizationLb;

use crate::generate::message::time;

/// Name of the policy.
const UTILIZATION: &str = "envoy.load_balancing_policies.client_side_weighted_round_robin";
/// Name of the policy that picks a locality by its weight first.
const BY_LOCALITY: &str = "envoy.load_balancing_policies.wrr_locality";

/// Sets it on a cluster.
pub(super) fn set(cluster: &mut Cluster, wanted: &BackendUtilizationLb, slow: Option<SlowStartConfig>) {
    let penalty = wanted.error_utilization_penalty_percent;
    let config = ClientSideWeightedRoundRobin {
        blackout_period: time(wanted.weight_stabilization_period),
        weight_expiration_period: time(wanted.weight_expiration_period),
        weight_update_period: time(wanted.weight_update_period),
        // Not set is Envoy's own.
        error_utilization_penalty: (penalty > 0).then(|| (f64::from(penalty) / 100.0) as f32),
        metric_names_for_computing_utilization: wanted.metric_names_for_computing_utilization.clone(),
        slow_start_config: slow.map(|slow| SlowStart {
            slow_start_window: slow.slow_start_window,
            aggression: slow.aggression,
            min_weight_percent: slow.min_weight_percent,
        }),
        ..ClientSideWeightedRoundRobin::default()
    };
    let mut policy = of(UTILIZATION, &config);
    // Envoy refuses a policy beside settings of localities; it has one for their weights.
    let common = cluster.common_lb_config.get_or_insert_default();
    let localities = common.locality_config_specifier.take();
    if matches!(localities, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))) {
        policy = of(BY_LOCALITY, &WrrLocality { endpoint_picking_policy: Some(policy) });
    }
    cluster.lb_policy = LbPolicy::default().into();
    cluster.lb_config = None;
    cluster.load_balancing_policy = Some(policy);
}

fn of<M: prost::Message + prost::Name>(name: &str, config: &M) -> LoadBalancingPolicy {
    let config = TypedExtensionConfig { name: name.into(), typed_config: Some(Any::pack(config)) };
    let policy = load_balancing_policy::Policy { typed_extension_config: Some(config) };
    LoadBalancingPolicy { policies: vec![policy] }
}
