//! Rules of `Sidecar`.

pub(super) mod hosts;

use std::collections::BTreeSet;
use std::net::IpAddr;

use proto::istio::networking::v1alpha3::outbound_traffic_policy::Mode;
use proto::istio::networking::v1alpha3::server_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{
    CaptureMode, ConnectionPoolSettings, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy,
    ServerTlsSettings, Sidecar, SidecarPort,
};

use super::destination_rule::pool;
use super::gateway;
use crate::validate::{Checker, is_dns_label};

/// What a port may speak; an empty word asks for detection.
const PROTOCOLS: [&str; 12] = [
    "HTTP",
    "HTTP2",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP_PROXY",
    "TCP",
    "TLS",
    "MONGO",
    "MYSQL",
    "REDIS",
    "UDP",
];
/// What the address of a Unix socket starts with.
const SOCKET: &str = "unix://";

pub(super) fn check(sidecar: &Sidecar, checker: &mut Checker) {
    if let Some(selector) = &sidecar.workload_selector {
        checker.selector("workloadSelector.labels", &selector.labels);
    }
    let Sidecar { ingress, egress, outbound_traffic_policy, inbound_connection_pool, .. } = sidecar;
    let is_empty = ingress.is_empty()
        && egress.is_empty()
        && outbound_traffic_policy.is_none()
        && inbound_connection_pool.is_none();
    if is_empty {
        let message = "is empty: give egress, ingress, outboundTrafficPolicy or inboundConnectionPool";
        checker.error("", message);
    }
    ingress_listeners(ingress, checker);
    if let Some(settings) = inbound_connection_pool {
        pool::check("inboundConnectionPool", settings, checker);
    }
    egress_listeners(egress, checker);
    if let Some(policy) = outbound_traffic_policy {
        unknown_destinations("outboundTrafficPolicy", policy, checker);
    }
}

fn ingress_listeners(listeners: &[IstioIngressListener], checker: &mut Checker) {
    let mut ports = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        let at = format!("ingress[{index}]");
        let Some(port) = &listener.port else {
            checker.error(format!("{at}.port"), "is missing: give number and protocol");
            continue;
        };
        self::port(&format!("{at}.port"), port, checker);
        checker.port(&format!("{at}.port.number"), port.number);
        if !ports.insert(port.number) {
            let message = format!("{} has an ingress listener already: each port may have one", port.number);
            checker.error(format!("{at}.port.number"), message);
        }
        address(&format!("{at}.bind"), &listener.bind, checker);
        endpoint(&format!("{at}.defaultEndpoint"), &listener.default_endpoint, checker);
        if let Some(tls) = &listener.tls {
            self::tls(&format!("{at}.tls"), tls, &port.protocol, checker);
        }
        if let Some(settings) = &listener.connection_pool {
            connection_pool(&format!("{at}.connectionPool"), settings, &port.protocol, checker);
        }
    }
}

/// Where an ingress listener leads: to the workload, by one of its addresses.
fn endpoint(field: &str, endpoint: &str, checker: &mut Checker) {
    if endpoint.is_empty() {
        return;
    }
    if let Some(path) = endpoint.strip_prefix(SOCKET) {
        return socket(field, path, checker);
    }
    let fits = |(host, port): (&str, &str)| {
        matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]")
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if !endpoint.rsplit_once(':').is_some_and(fits) {
        let message = format!(
            "{endpoint:?} is no place in the workload: expected 127.0.0.1:PORT, 0.0.0.0:PORT (its own address), [::1]:PORT, [::]:PORT or unix:///PATH"
        );
        checker.error(field, message);
    }
}

fn tls(at: &str, tls: &ServerTlsSettings, protocol: &str, checker: &mut Checker) {
    let has_tls = ["HTTPS", "TLS"].iter().any(|known| protocol.eq_ignore_ascii_case(known));
    if !has_tls {
        checker.error(at, format!("protocol {protocol:?} has no TLS: use HTTPS or TLS"));
    }
    for (name, is_set) in [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ] {
        if is_set {
            checker.error(
                format!("{at}.{name}"),
                "is for gateways only: use certificates in files of the proxy",
            );
        }
    }
    if matches!(tls.mode(), TlsMode::IstioMutual | TlsMode::AutoPassthrough) {
        let message = format!("{} is for gateways only: use SIMPLE or MUTUAL", tls.mode().as_str_name());
        checker.error(format!("{at}.mode"), message);
    }
    gateway::tls::check(at, tls, checker);
    checker.warn(
        at,
        "has an effect only with ENABLE_TLS_ON_SIDECAR_INGRESS=true in istiod, and where a PeerAuthentication disables mutual TLS for the port",
    );
}

fn connection_pool(at: &str, settings: &ConnectionPoolSettings, protocol: &str, checker: &mut Checker) {
    pool::check(at, settings, checker);
    let is_http = ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"]
        .iter()
        .any(|known| protocol.eq_ignore_ascii_case(known));
    if settings.http.is_some() && !is_http {
        let message = format!("has no effect for protocol {protocol:?}: only the TCP settings apply");
        checker.warn(format!("{at}.http"), message);
    }
}

fn egress_listeners(listeners: &[IstioEgressListener], checker: &mut Checker) {
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for (index, listener) in listeners.iter().enumerate() {
        let at = format!("egress[{index}]");
        let bind = format!("{at}.bind");
        match &listener.port {
            None => {
                if index + 1 < listeners.len() {
                    let message = "is missing: a listener for all ports must be the only one without a port, and the last";
                    checker.error(format!("{at}.port"), message);
                }
                address(&bind, &listener.bind, checker);
            }
            Some(port) if port.number == 0 => {
                self::port(&format!("{at}.port"), port, checker);
                match listener.bind.strip_prefix(SOCKET) {
                    Some(path) => socket(&bind, path, checker),
                    None => checker.error(&bind, "must be a Unix socket (unix:///PATH) with port number 0"),
                }
                if listener.capture_mode() == CaptureMode::Iptables {
                    let message = "IPTABLES cannot redirect to a Unix socket: leave it out, or use NONE";
                    checker.error(format!("{at}.captureMode"), message);
                }
                if !sockets.insert(&listener.bind) {
                    checker.error(&bind, format!("{} has an egress listener already", listener.bind));
                }
            }
            Some(port) => {
                self::port(&format!("{at}.port"), port, checker);
                checker.port(&format!("{at}.port.number"), port.number);
                if !ports.insert(port.number) {
                    let message =
                        format!("{} has an egress listener already: each port may have one", port.number);
                    checker.error(format!("{at}.port.number"), message);
                }
                address(&bind, &listener.bind, checker);
            }
        }
        hosts::check(&format!("{at}.hosts"), &listener.hosts, checker);
    }
}

fn port(at: &str, port: &SidecarPort, checker: &mut Checker) {
    if !port.name.is_empty() && !is_dns_label(&port.name) {
        let message =
            format!("{:?} is not a name: expected lower case letters, digits and dashes", port.name);
        checker.error(format!("{at}.name"), message);
    }
    if !port.protocol.is_empty() && !PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
        let message = format!("{:?} is unknown: expected {}", port.protocol, PROTOCOLS.join(", "));
        checker.error(format!("{at}.protocol"), message);
    }
    if port.target_port > 0 {
        let message = "has no effect in a Sidecar: use defaultEndpoint of an ingress listener";
        checker.error(format!("{at}.targetPort"), message);
    }
}

fn address(field: &str, bind: &str, checker: &mut Checker) {
    if !bind.is_empty() && bind.parse::<IpAddr>().is_err() {
        checker.error(field, format!("{bind:?} is not an IP address such as 127.0.0.1"));
    }
}

fn socket(field: &str, path: &str, checker: &mut Checker) {
    let is_file = path.starts_with('/') && !path.ends_with('/');
    if !(path.starts_with('@') || is_file) {
        checker.error(
            field,
            format!("\"{SOCKET}{path}\" is not an absolute path to a file: expected unix:///PATH"),
        );
    }
}

fn unknown_destinations(at: &str, policy: &OutboundTrafficPolicy, checker: &mut Checker) {
    let Some(proxy) = &policy.egress_proxy else { return };
    let at = format!("{at}.egressProxy");
    if policy.mode() != Mode::AllowAny {
        checker.error(&at, "needs mode: ALLOW_ANY, since it is for destinations that are not known");
    }
    checker.host(&format!("{at}.host"), &proxy.host);
    if proxy.host.starts_with('*') {
        checker.error(format!("{at}.host"), format!("{:?} is a wildcard: name one service", proxy.host));
    }
    if !proxy.subset.is_empty() {
        checker.subset(&format!("{at}.subset"), &proxy.subset);
    }
    match &proxy.port {
        None => checker.error(format!("{at}.port"), "is missing: give the number of the proxy's port"),
        Some(port) => checker.port(&format!("{at}.port.number"), port.number),
    }
}

#[cfg(test)]
mod tests;
