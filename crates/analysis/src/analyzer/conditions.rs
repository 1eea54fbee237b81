//! What the control plane itself says is wrong with an object.

use super::Report;
use crate::{Code, Kind, World};

/// Conditions that should not be false, by kind.
const EXPECTED: &[(Kind, &[&str])] = &[
    (Kind::Service, &["istio.io/WaypointBound"]),
    (Kind::ServiceEntry, &["istio.io/WaypointBound"]),
    (Kind::WorkloadEntry, &["istio.io/WaypointBound"]),
    (Kind::AuthorizationPolicy, &["ZtunnelAccepted", "WaypointAccepted"]),
    (Kind::KubernetesGateway, &["Accepted", "Programmed", "ResolvedRefs"]),
    (Kind::HttpRoute, &["Accepted", "Programmed", "ResolvedRefs"]),
    (Kind::GrpcRoute, &["Accepted", "Programmed", "ResolvedRefs"]),
];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (kind, expected) in EXPECTED {
        for one in world.of(*kind) {
            for condition in &one.conditions {
                let is_false = expected.contains(&&*condition.kind) && *condition.status == *"False";
                // This one is true where a part of the policy has no effect.
                let is_partial = *kind == Kind::AuthorizationPolicy
                    && *condition.kind == *"WaypointAccepted"
                    && *condition.reason == *"PartiallyInvalid";
                if is_false || is_partial {
                    let values = [&*condition.kind, &*condition.reason, &*condition.message];
                    report.add(Code::NegativeConditionStatus, one, &values);
                }
            }
        }
    }
}
