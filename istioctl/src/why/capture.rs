//! Whether a connection is redirected to Envoy at all, by the rules that
//! istio-init writes for a pod's annotations.

use std::net::IpAddr;

use super::proxy::Proxy;

const PREFIX: &str = "traffic.sidecar.istio.io/";
/// Ports of Envoy and the agent that are never redirected.
const OWN: [u16; 3] = [15020, 15021, 15090];

/// Why an outbound connection is not redirected.
pub(super) fn outbound(proxy: &Proxy, address: Option<IpAddr>, port: u16) -> Option<String> {
    if let Some(ip) = address.filter(IpAddr::is_loopback) {
        return Some(format!("{ip} stays in the pod"));
    }
    if let Some(ip) = address.filter(|ip| proxy.addresses.contains(ip)) {
        return Some(format!("{ip} is the pod itself"));
    }
    let annotation = |name: &str| proxy.annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
    let excluded = annotation("excludeOutboundPorts").filter(|ports| has_port(ports, port));
    if let Some(ports) = excluded {
        return Some(format!("annotation {PREFIX}excludeOutboundPorts: {ports:?}"));
    }
    let ip = address?;
    if let Some(ranges) = annotation("excludeOutboundIPRanges").filter(|ranges| has_ip(ranges, ip)) {
        return Some(format!("annotation {PREFIX}excludeOutboundIPRanges: {ranges:?}"));
    }
    if annotation("includeOutboundPorts").is_some_and(|ports| has_port(ports, port)) {
        return None;
    }
    let included = annotation("includeOutboundIPRanges").unwrap_or("*");
    (!has_ip(included, ip)).then(|| format!("annotation {PREFIX}includeOutboundIPRanges: {included:?}"))
}

/// Why an inbound connection is not redirected.
pub(super) fn inbound(proxy: &Proxy, port: u16) -> Option<String> {
    let annotation = |name: &str| proxy.annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
    if OWN.contains(&port) {
        return Some(format!("port {port} is one of the sidecar's own"));
    }
    match annotation("includeInboundPorts") {
        None | Some("*") => {
            let excluded = annotation("excludeInboundPorts").filter(|ports| has_port(ports, port));
            excluded.map(|ports| format!("annotation {PREFIX}excludeInboundPorts: {ports:?}"))
        }
        Some(ports) => {
            (!has_port(ports, port)).then(|| format!("annotation {PREFIX}includeInboundPorts: {ports:?}"))
        }
    }
}

fn has_port(ports: &str, port: u16) -> bool {
    ports.split(',').any(|one| one.trim() == "*" || one.trim().parse() == Ok(port))
}

fn has_ip(ranges: &str, ip: IpAddr) -> bool {
    ranges.split(',').map(str::trim).any(|range| {
        let net = range.parse::<ipnet::IpNet>();
        range == "*" || net.is_ok_and(|net| net.contains(&ip)) || range.parse() == Ok(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(annotations: &[(&str, &str)]) -> Proxy {
        let annotations: serde_json::Map<String, serde_json::Value> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let dump = serde_json::json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": {"node": {"id": "sidecar~10.0.0.1~a.b~b.svc.cluster.local", "metadata": {"ANNOTATIONS": annotations}}},
        }]});
        Proxy::read(&dump.to_string(), None).unwrap()
    }

    #[test]
    fn annotations_say_what_is_taken() {
        let out = |annotations: &[(&str, &str)], ip: &str, port: u16| {
            outbound(&proxy(annotations), ip.parse().ok(), port).is_none()
        };
        assert!(out(&[], "10.1.1.1", 80));
        assert!(!out(&[], "127.0.0.1", 80) && !out(&[], "10.0.0.1", 80));
        assert!(!out(&[("excludeOutboundPorts", "443, 80")], "10.1.1.1", 80));
        assert!(!out(&[("includeOutboundIPRanges", "10.2.0.0/16")], "10.1.1.1", 80));
        assert!(out(
            &[("includeOutboundIPRanges", "10.2.0.0/16"), ("includeOutboundPorts", "80")],
            "10.1.1.1",
            80
        ));
        assert!(!out(&[("excludeOutboundIPRanges", "10.1.0.0/16")], "10.1.1.1", 80));
        let inn = |annotations: &[(&str, &str)], port: u16| inbound(&proxy(annotations), port).is_none();
        assert!(inn(&[], 80) && !inn(&[], 15021));
        assert!(!inn(&[("excludeInboundPorts", "80")], 80));
        assert!(!inn(&[("includeInboundPorts", "81")], 80) && inn(&[("includeInboundPorts", "81")], 81));
    }
}
