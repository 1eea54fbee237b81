//! Applications that run as the user of the proxy: their traffic passes it by.

use super::Report;
use super::mesh::{PROXY, is_control_plane};
use crate::kube::PodSpec;
use crate::{Code, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let pods = world.pods();
    let deployments = world.deployments().map(|(one, deployment)| (one, &deployment.template.spec));
    for (one, spec) in pods.chain(deployments) {
        if !is_control_plane(one) && uses_it(spec) {
            report.add(Code::InvalidApplicationUID, one, &[]);
        }
    }
}

fn uses_it(spec: &PodSpec) -> bool {
    let is_it = |user: Option<i64>| user == Some(i64::from(names::port::PROXY_UID));
    let own = spec.containers.iter().filter(|one| ![PROXY, "istio-operator"].contains(&&*one.name));
    is_it(spec.security_context.run_as_user)
        || own.into_iter().any(|one| is_it(one.security_context.run_as_user))
}
