//! Fields and kinds that are on their way out.

use proto::istio::networking::v1alpha3::{Sidecar, VirtualService};

use super::Report;
use crate::{Body, Code, Kind, World};

/// Kinds of Istio that are no more.
const REMOVED: [&str; 4] = ["ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"];
const REMOVED_GROUP: &str = "rbac.istio.io";

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        let mut delays = service.http.iter().filter_map(|route| route.fault.as_ref()?.delay.as_ref());
        if delays.any(|delay| delay.percent > 0) {
            let what = "HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage";
            report.add(Code::Deprecated, one, &[what]);
        }
    }
    for (one, sidecar) in world.all::<Sidecar>(Kind::Sidecar) {
        let policy = sidecar.outbound_traffic_policy.as_ref();
        if policy.is_some_and(|policy| policy.egress_proxy.is_some()) {
            report.add(Code::Deprecated, one, &["OutboundTrafficPolicy.EgressProxy ignored"]);
        }
    }
    for one in world.of(Kind::CustomResourceDefinition) {
        let Body::Definition(definition) = &one.body else { continue };
        let kind = &*definition.names.kind;
        if *definition.group == *REMOVED_GROUP && REMOVED.contains(&kind) {
            let what = format!("Custom resource type {REMOVED_GROUP} {kind} is removed");
            report.add(Code::Deprecated, one, &[&what]);
        }
    }
}
