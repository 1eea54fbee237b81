//! Endpoints of other networks: their gateways stand for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::group::{Group, Member, Target};
use crate::proxy::Proxy;
use crate::snapshot::Endpoint;
use crate::snapshot::endpoint::Health;
use crate::snapshot::network::{Gateway, Networks};

/// Puts gateways in the place of endpoints that the proxy does not reach
/// directly. A gateway gets the sum of their weights, or its share if there are
/// several; it passes mutual TLS on by server name and nothing else, so servers
/// without it cannot be reached.
pub(super) fn split<'a>(networks: &'a Networks, proxy: &Proxy, group: &mut Group<'a>) {
    let scale = networks.weight_scale();
    let mut members = Vec::with_capacity(group.members.len());
    let mut weights: BTreeMap<&Gateway, u32> = BTreeMap::new();
    for mut member in std::mem::take(&mut group.members) {
        member.weight = member.weight.saturating_mul(scale).max(1);
        let Target::Direct(endpoint) = member.target else { continue };
        let gateways = networks.gateways(&endpoint.network, &endpoint_cluster(endpoint));
        if is_near(proxy, &endpoint.network, !gateways.is_empty()) {
            if member.has_address() {
                members.push(member);
            }
            continue;
        }
        let reachable: Vec<_> =
            gateways.into_iter().filter(|gateway| can_reach(proxy, gateway.address)).collect();
        if !member.accepts_mtls || reachable.is_empty() {
            continue;
        }
        let share = member.weight / u32::try_from(reachable.len()).unwrap_or(u32::MAX);
        for gateway in reachable {
            let weight = weights.entry(gateway).or_default();
            *weight = weight.saturating_add(share);
        }
    }
    members.extend(weights.into_iter().map(|(gateway, weight)| Member {
        target: Target::Gateway(gateway),
        health: Health::Unknown,
        weight: weight.max(1),
        accepts_mtls: true,
    }));
    group.members = members;
    group.sum_up();
}

/// Whether an endpoint of a network is reached directly. One of an unknown
/// network is; a proxy of an unknown network goes through a gateway if there is one.
fn is_near(proxy: &Proxy, network: &str, has_gateways: bool) -> bool {
    if network.is_empty() || !has_gateways {
        return true;
    }
    !proxy.network.is_empty() && proxy.network == network
}

/// Whether the proxy has an address of that family.
fn can_reach(proxy: &Proxy, address: IpAddr) -> bool {
    let address = address.to_canonical();
    proxy.ips.is_empty() || proxy.ips.iter().any(|ip| ip.is_ipv4() == address.is_ipv4())
}

fn endpoint_cluster(endpoint: &Endpoint) -> String {
    endpoint.labels.get(names::label::CLUSTER).cloned().unwrap_or_default()
}
