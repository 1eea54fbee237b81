//! Deployments that several services reach in ways that exclude each other.

use std::collections::BTreeMap;

use super::Report;
use super::mesh::has_sidecar;
use crate::kube::Service;
use crate::message::list;
use crate::{Code, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, deployment) in world.deployments() {
        let template = &deployment.template;
        let meta = &template.metadata;
        let is_waypoint = one.labels.get("gateway.istio.io/managed") == Some("istio.io-mesh-controller");
        let containers = template.spec.containers.iter().chain(&template.spec.init_containers);
        if is_waypoint || !has_sidecar(world, &one.namespace, &meta.labels, &meta.annotations, containers) {
            continue;
        }
        let services: Vec<_> = world.services_of(&one.namespace, &meta.labels).collect();
        protocols(one, &services, report);
        target_ports(one, &services, report);
    }
}

fn protocols<'a>(one: &'a Resource, services: &[(&Resource, &Service)], report: &mut Report<'a>) {
    let mut ports: BTreeMap<i32, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for (service, spec) in services {
        for port in &spec.ports {
            let names = ports.entry(port.port).or_default().entry(port.transport()).or_default();
            names.push(service.full_name());
        }
    }
    for (port, protocols) in ports.iter().filter(|(_, protocols)| protocols.len() > 1) {
        let mut names: Vec<&String> = protocols.values().flatten().collect();
        names.sort();
        let values = [&*one.name, &*port.to_string(), &*list(&names)];
        report.add_at(Code::DeploymentAssociatedToMultipleServices, one, "metadata.name", &values);
    }
}

fn target_ports<'a>(one: &'a Resource, services: &[(&Resource, &Service)], report: &mut Report<'a>) {
    let mut targets: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
    for (service, spec) in services {
        for port in &spec.ports {
            let target = match &*port.target_port {
                "" | "0" => port.port.to_string(),
                target => target.to_owned(),
            };
            targets.entry(target).or_default().insert(port.port, service.full_name());
        }
    }
    for (target, ports) in targets.iter().filter(|(_, ports)| ports.len() > 1) {
        let mut names: Vec<&String> = ports.values().collect();
        names.sort();
        let numbers: Vec<String> = ports.keys().map(ToString::to_string).collect();
        let values = [&*one.name, &*list(&names), target, &*list(&numbers)];
        report.add_at(Code::DeploymentConflictingPorts, one, "metadata.name", &values);
    }
}
