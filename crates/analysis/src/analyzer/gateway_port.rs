//! Ports of gateways that no service leads to.

use std::collections::{HashMap, HashSet};

use proto::istio::networking::v1alpha3::Gateway;

use super::Report;
use super::mesh::label_field;
use crate::labels::{pairs, selector};
use crate::{Code, Kind, World};

/// Ports that services lead to; `None` when there are no pods.
type Ports = Option<HashSet<u32>>;

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut known: HashMap<String, Ports> = HashMap::new();
    for (one, gateway) in world.all::<Gateway>(Kind::Gateway) {
        let own = selector(pairs(&gateway.selector));
        let field = label_field("spec.selector", &own);
        let ports = known.entry(own.clone()).or_insert_with(|| ports(world, &gateway));
        let Some(ports) = ports else {
            report.add_at(Code::ReferencedResourceNotFound, one, &field, &["selector", &own]);
            continue;
        };
        for port in gateway.servers.iter().filter_map(|server| server.port.as_ref()) {
            if !ports.contains(&port.number) {
                let values = [&*port.number.to_string(), &*own];
                report.add_at(Code::GatewayPortNotDefinedOnService, one, &field, &values);
            }
        }
    }
}

fn ports(world: &World, gateway: &Gateway) -> Ports {
    let mut ports = None;
    let mut seen = HashSet::new();
    for (pod, _) in world.selected_pods(None, pairs(&gateway.selector)) {
        let ports = ports.get_or_insert_with(HashSet::new);
        if !seen.insert((&pod.namespace, &pod.labels)) {
            continue;
        }
        for (_, service) in world.services_of(&pod.namespace, &pod.labels) {
            for port in service.ports.iter().filter(|port| port.transport() == "TCP") {
                // The number of the port itself is one that users of the service know.
                ports.extend(u32::try_from(port.port));
                ports.extend(port.target_port.parse::<u32>());
            }
        }
    }
    ports
}
