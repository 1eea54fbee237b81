//! Control planes that fetch keys of JWTs from wherever objects say.

use super::Report;
use crate::{Code, Kind, Resource, World};

const VARIABLE: &str = "BLOCKED_CIDRS_IN_JWKS_URIS";
/// So many objects are named.
const SHOWN: usize = 5;

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let names: Vec<String> = world.of(Kind::RequestAuthentication).map(Resource::full_name).collect();
    if names.is_empty() {
        return;
    }
    let mut shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        shown += &format!(", and {} more", names.len() - SHOWN);
    }
    for (one, deployment) in world.deployments() {
        let containers = &deployment.template.spec.containers;
        let mut variables = containers.iter().flat_map(|container| &container.env);
        let is_set = variables.any(|variable| *variable.name == *VARIABLE && !variable.value.is_empty());
        if one.labels.get("app") == Some("istiod") && !is_set {
            report.add(Code::JwksUriFetchUnrestricted, one, &[&names.len().to_string(), &shown]);
        }
    }
}
