//! Policies that select pods of a gateway of the Gateway API, which they have
//! to name instead.

use proto::istio::extensions::v1alpha1::WasmPlugin;
use proto::istio::security::v1beta1::{AuthorizationPolicy, RequestAuthentication};
use proto::istio::telemetry::v1alpha1::Telemetry;
use proto::istio::r#type::v1beta1::WorkloadSelector;

use super::Report;
use crate::labels::pairs;
use crate::{Code, Kind, Resource, World};

/// Label with the gateway that a pod is of.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, policy) in world.all::<AuthorizationPolicy>(Kind::AuthorizationPolicy) {
        check(world, one, policy.selector.as_ref().filter(|_| policy.target_ref.is_none()), report);
    }
    for (one, policy) in world.all::<RequestAuthentication>(Kind::RequestAuthentication) {
        check(world, one, policy.selector.as_ref().filter(|_| policy.target_ref.is_none()), report);
    }
    for (one, policy) in world.all::<Telemetry>(Kind::Telemetry) {
        check(world, one, policy.selector.as_ref().filter(|_| policy.target_ref.is_none()), report);
    }
    for (one, policy) in world.all::<WasmPlugin>(Kind::WasmPlugin) {
        check(world, one, policy.selector.as_ref().filter(|_| policy.target_ref.is_none()), report);
    }
}

fn check<'a>(
    world: &'a World,
    one: &'a Resource,
    selector: Option<&WorkloadSelector>,
    report: &mut Report<'a>,
) {
    let Some(selector) = selector else { return };
    let pods = world.selected_pods(Some(&one.namespace), pairs(&selector.match_labels));
    let mut gateways: Vec<&str> = pods.filter_map(|(pod, _)| pod.labels.get(GATEWAY)).collect();
    gateways.sort_unstable();
    gateways.dedup();
    for gateway in gateways {
        report.add(Code::IneffectiveSelector, one, &[gateway]);
    }
}
