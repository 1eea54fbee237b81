//! Services of the same name that are not the same in all clusters.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use crate::kube::{Service, ServicePort};
use crate::{Code, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut all: BTreeMap<(&str, &str), Vec<(&'a Resource, &'a Service)>> = BTreeMap::new();
    for (one, service) in world.services() {
        all.entry((&one.namespace, &one.name)).or_default().push((one, service));
    }
    for ((namespace, name), services) in all {
        let Some(((one, first), others)) = services.split_first() else { continue };
        let (mut clusters, mut reasons) = (BTreeSet::new(), BTreeSet::new());
        for (other, service) in others {
            let mut tell = |reason: &'static str| {
                clusters.insert(&*other.cluster);
                reasons.insert(reason);
            };
            if is_headless(first) != is_headless(service) {
                tell("service has mixed mode like headless and clusterIP");
            }
            if first.service_type != service.service_type {
                tell("service type is inconsistent");
            }
            if ports(first) != ports(service) {
                tell("service ports are inconsistent");
            }
        }
        if clusters.is_empty() {
            continue;
        }
        clusters.insert(&one.cluster);
        let quoted: Vec<String> = clusters.iter().map(|cluster| format!("{cluster:?}")).collect();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
        let values = [name, namespace, &*crate::message::list(&quoted), &*reasons];
        report.add(Code::MultiClusterInconsistentService, one, &values);
    }
}

fn is_headless(service: &Service) -> bool {
    *service.cluster_ip == *"None"
}

fn ports(service: &Service) -> Vec<&ServicePort> {
    let mut ports: Vec<&ServicePort> = service.ports.iter().collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name).then(a.port.cmp(&b.port)));
    ports
}
