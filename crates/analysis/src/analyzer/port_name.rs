//! Ports of services whose name does not say what they speak.

use super::Report;
use super::mesh::is_control_plane;
use crate::kube::ServicePort;
use crate::{Code, World};

/// Services that Istio makes for gateways of the Gateway API.
const MANAGED: [&str; 3] =
    ["istio.io-gateway-controller", "istio.io-mesh-controller", "istio.io-eastwest-controller"];
/// Ports whose servers speak first: SMTP, DNS, MySQL, MongoDB.
const SERVER_FIRST: [i32; 4] = [25, 53, 3306, 27017];
const PROTOCOLS: [&str; 11] =
    ["tcp", "udp", "grpc", "grpc-web", "http", "http_proxy", "http2", "https", "tls", "mongo", "redis"];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, service) in world.services() {
        let managed = one.labels.get("gateway.istio.io/managed");
        if is_control_plane(one) || managed.is_some_and(|by| MANAGED.contains(&by)) {
            continue;
        }
        let is_external = *service.service_type == *"ExternalName";
        for (index, port) in service.ports.iter().enumerate() {
            if says_protocol(port) && !(is_external && *port.name == *"tcp") {
                continue;
            }
            let field = format!("spec.ports[{index}].port");
            if is_external {
                report.add_at(Code::ExternalNameServiceTypeInvalidPortName, one, &field, &[]);
            } else {
                let target = if port.target_port.is_empty() { "0" } else { &port.target_port };
                let values = [&*port.name, &*port.port.to_string(), target];
                report.add_at(Code::PortNameIsNotUnderNamingConvention, one, &field, &values);
            }
        }
    }
}

fn says_protocol(port: &ServicePort) -> bool {
    let own = port.app_protocol.as_deref();
    if port.transport() == "UDP" || own.is_some_and(|own| own.starts_with("kubernetes.io/")) {
        return matches!(own, None | Some("kubernetes.io/h2c" | "kubernetes.io/ws" | "kubernetes.io/wss"))
            || port.transport() == "UDP";
    }
    let name = own.unwrap_or(&port.name).to_ascii_lowercase();
    let first = name.split('-').next().unwrap_or_default();
    SERVER_FIRST.contains(&port.port)
        || name.starts_with("grpc-web")
        || PROTOCOLS.contains(&first)
        || first == "mysql"
}
