//! Routes by claims of a JWT at gateways that check none.

use std::collections::HashMap;

use proto::istio::networking::v1alpha3::{Gateway, VirtualService};
use proto::istio::security::v1beta1::RequestAuthentication;

use super::Report;
use crate::labels::pairs;
use crate::resource::full_name;
use crate::{Code, Kind, World};

const CLAIM: &str = "@request.auth.claims";

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut checks: HashMap<&str, Vec<RequestAuthentication>> = HashMap::new();
    for (one, authentication) in world.all::<RequestAuthentication>(Kind::RequestAuthentication) {
        checks.entry(&one.namespace).or_default().push(authentication);
    }
    let root = world.mesh.root_namespace.as_str();
    for (one, service) in world.all::<VirtualService>(Kind::VirtualService) {
        let Some(claim) = claim(&service) else { continue };
        for name in service.gateways.iter().filter(|name| *name != "mesh") {
            let (namespace, local) = name.split_once('/').unwrap_or((&one.namespace, name));
            let found = world.find(Kind::Gateway, namespace, local).and_then(|found| found.spec::<Gateway>());
            let Some(gateway) = found else { continue };
            for (pod, _) in world.selected_pods(None, pairs(&gateway.selector)) {
                let mut all = [root, &*pod.namespace].into_iter().filter_map(|at| checks.get(at)).flatten();
                let is_checked = all.any(|authentication| {
                    let wanted = authentication.selector.as_ref();
                    wanted.is_none_or(|wanted| pod.labels.fits(pairs(&wanted.match_labels)))
                });
                if !is_checked {
                    let values = [claim, &*full_name(namespace, local), &*pod.name];
                    report.add(Code::JwtClaimBasedRoutingWithoutRequestAuthN, one, &values);
                }
            }
        }
    }
}

fn claim(service: &VirtualService) -> Option<&str> {
    let matches = service.http.iter().flat_map(|route| &route.r#match);
    let mut names = matches.flat_map(|one| one.headers.keys().chain(one.without_headers.keys()));
    names.find(|name| is_claim(name)).map(String::as_str)
}

fn is_claim(name: &str) -> bool {
    let Some((start, rest)) = name.split_at_checked(CLAIM.len()) else { return false };
    let is_dotted = rest.starts_with('.') && rest.len() > 1;
    let is_bracketed = rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2;
    start.eq_ignore_ascii_case(CLAIM) && (is_dotted || is_bracketed)
}

#[cfg(test)]
mod tests {
    use super::is_claim;

    #[test]
    fn claims_are_told_from_headers() {
        assert!(is_claim("@request.auth.claims.sub") && is_claim("@Request.auth.claims[a][b]"));
        assert!(!is_claim("@request.auth.claims") && !is_claim("@request.auth.claims[]") && !is_claim("x"));
    }
}
