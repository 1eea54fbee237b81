//! Networks with endpoints of clusters that nobody knows.

use proto::istio::mesh::v1alpha1::network::network_endpoints::Ne;

use super::Report;
use crate::{Body, Code, Kind, World};

/// Names that mean the registries of the control plane itself.
const OWN: [&str; 3] = ["Mock", "Kubernetes", "External"];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let remote = world.of(Kind::Secret).filter(|one| one.labels.get("istio/multiCluster") == Some("true"));
    let remote = remote.filter_map(|one| match &one.body {
        Body::Secret(secret) => Some(secret.data.keys().chain(secret.string_data.keys())),
        _ => None,
    });
    let known: Vec<&str> = OWN.into_iter().chain(remote.flatten().map(String::as_str)).collect();
    for one in world.of(Kind::MeshNetworks) {
        for (name, network) in &world.networks.networks {
            for endpoints in &network.endpoints {
                if let Some(Ne::FromRegistry(registry)) = &endpoints.ne
                    && !known.contains(&registry.as_str())
                {
                    report.add(Code::UnknownMeshNetworksServiceRegistry, one, &[registry, name]);
                }
            }
        }
    }
}
