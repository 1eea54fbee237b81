//! Rules of `Service`, as the API server has them: Envoy refuses all listeners
//! and clusters of a push for what one service has wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kube::{Service, ServicePort, ServiceSpec, TargetPort};
use crate::validate::Checker;

/// Fields that the mesh does not use.
pub(super) const UNUSED: &[&str] = &[
    "nodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "loadBalancerClass",
    "allocateLoadBalancerNodePorts",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "sessionAffinityConfig",
    // Of the status.
    "conditions",
    "ipMode",
];

const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];

pub(super) fn check(service: &Service, checker: &mut Checker) {
    checker.within("spec", |checker| spec(service, checker));
}

fn spec(service: &ServiceSpec, checker: &mut Checker) {
    if !service.service_type.is_empty() {
        checker.one_of("type", &service.service_type, &TYPES);
    }
    if service.service_type == "ExternalName" {
        return checker.host("externalName", &service.external_name);
    }
    let cluster_ips = service.cluster_ips.iter().enumerate();
    let named = cluster_ips.map(|(index, ip)| (format!("clusterIPs[{index}]"), ip));
    for (field, ip) in named.chain([("clusterIP".to_owned(), &service.cluster_ip)]) {
        if !ip.is_empty() && ip != "None" && ip.parse::<IpAddr>().is_err() {
            checker.error(
                field,
                format!("{ip:?} is not an IP address: give one, or None for a headless service"),
            );
        }
    }
    if service.ports.is_empty() && !service.is_headless() {
        checker.error("ports", "is missing: a service that is not headless has at least one port");
    }
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in service.ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        self::port(&at, port, checker);
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        if port.port > 0 && !numbers.insert((port.port, protocol)) {
            let message = format!("{} stands twice for {protocol}: give each port another number", port.port);
            checker.error(format!("{at}.port"), message);
        }
        if port.name.is_empty() && service.ports.len() > 1 {
            checker.error(format!("{at}.name"), "is missing: of several ports each needs a name");
        } else if !names.insert(&port.name) {
            let message = format!("there are two ports {:?}: give each another name", port.name);
            checker.error(format!("{at}.name"), message);
        }
    }
}

fn port(at: &str, port: &ServicePort, checker: &mut Checker) {
    if port.port == 0 {
        checker.error(format!("{at}.port"), "is missing or 0: expected 1 to 65535");
    }
    if !port.protocol.is_empty() {
        checker.one_of(&format!("{at}.protocol"), &port.protocol, &["TCP", "UDP", "SCTP"]);
    }
    match &port.target_port {
        Some(TargetPort::Number(0)) => {
            checker.error(format!("{at}.targetPort"), "0 is not a port: expected 1 to 65535");
        }
        Some(TargetPort::Name(name)) if !name.bytes().any(|b| b.is_ascii_lowercase()) => {
            checker.error(
                format!("{at}.targetPort"),
                format!("{name:?} is not the name of a port: expected a number without quotes, or a name such as http"),
            );
        }
        _ => {}
    }
}
