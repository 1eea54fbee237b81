//! Rules of `Gateway`. A server that Envoy does not understand makes it refuse
//! the listener, and with it all other servers of the port.

pub(super) mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proto::istio::networking::v1alpha3::server_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{Gateway, Port, Server};

use crate::validate::{Checker, is_dns_label};

/// What a server may speak.
const PROTOCOLS: [&str; 11] =
    ["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "HTTP_PROXY", "MONGO", "TCP", "TLS", "MYSQL", "REDIS"];

pub(super) fn check(gateway: &Gateway, checker: &mut Checker) {
    if gateway.servers.is_empty() {
        checker.error("servers", "is missing: give at least one server");
    }
    for (key, value) in &gateway.selector {
        checker.label(&format!("selector.{key}"), key, value);
    }
    let mut ports = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (index, server) in gateway.servers.iter().enumerate() {
        let at = format!("servers[{index}]");
        self::server(&at, server, checker);
        if let Some(port) = server.port.as_ref().filter(|port| !port.name.is_empty())
            && let Some(other) = ports.insert(&port.name, index)
        {
            let message = format!(
                "{:?} is the name of the port of servers[{other}], too: routes of servers are told apart by it",
                port.name
            );
            checker.error(format!("{at}.port.name"), message);
        }
        if !server.name.is_empty() && !names.insert(&server.name) {
            checker.warn(
                format!("{at}.name"),
                format!("{:?} is the name of two servers, whose statistics become one", server.name),
            );
        }
    }
}

fn server(at: &str, server: &Server, checker: &mut Checker) {
    if server.hosts.is_empty() {
        checker.error(format!("{at}.hosts"), "is missing: name at least one host, or \"*\"");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        self::host(&format!("{at}.hosts[{index}]"), host, checker);
    }
    if !server.default_endpoint.is_empty() {
        checker.warn(
            format!("{at}.defaultEndpoint"),
            "has no effect: bind a VirtualService to the gateway in place of it",
        );
    }
    let socket = server.bind.strip_prefix("unix://");
    if let Some(path) = socket {
        if !path.starts_with(['/', '@']) {
            let message = format!("{:?} has no absolute path: expected unix:///PATH", server.bind);
            checker.error(format!("{at}.bind"), message);
        }
        if server.port.as_ref().is_some_and(|port| port.number != 0) {
            checker.error(format!("{at}.port.number"), "must be 0 or absent with a Unix socket");
        }
    } else if !server.bind.is_empty() && server.bind.parse::<IpAddr>().is_err() {
        let message = format!("{:?} is not an IP address such as 10.0.0.1", server.bind);
        checker.error(format!("{at}.bind"), message);
    }
    let Some(port) = &server.port else {
        return checker.error(format!("{at}.port"), "is missing: give number, name and protocol");
    };
    self::port(&format!("{at}.port"), port, socket.is_some(), checker);
    let protocol = port.protocol.to_ascii_uppercase();
    let is_http = matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY");
    let ends_tls = matches!(protocol.as_str(), "HTTPS" | "TLS");
    match &server.tls {
        None if ends_tls => {
            let message =
                format!("is missing: protocol {protocol} needs a mode, such as SIMPLE with credentialName");
            checker.error(format!("{at}.tls"), message);
        }
        None => {}
        Some(tls) => {
            let at = format!("{at}.tls");
            tls::check(&at, tls, checker);
            let is_passthrough = matches!(tls.mode(), TlsMode::Passthrough | TlsMode::AutoPassthrough);
            let has_files = [&tls.ca_certificates, &tls.private_key, &tls.server_certificate];
            if is_http && (!is_passthrough || has_files.iter().any(|file| !file.is_empty())) {
                let message =
                    format!("protocol {protocol} has no TLS: use HTTPS, or leave only httpsRedirect");
                checker.error(&at, message);
            } else if !is_http && !ends_tls {
                checker.error(&at, format!("protocol {protocol} has no TLS: use TLS or HTTPS"));
            }
            if tls.https_redirect && !is_http {
                let message =
                    format!("has no effect for protocol {protocol}: it sends plaintext requests to HTTPS");
                checker.warn(format!("{at}.httpsRedirect"), message);
            }
        }
    }
}

fn port(at: &str, port: &Port, is_socket: bool, checker: &mut Checker) {
    if port.name.is_empty() {
        checker.error(format!("{at}.name"), "is missing: give a name such as http or https");
    }
    if !(is_socket && port.number == 0) {
        checker.port(&format!("{at}.number"), port.number);
    }
    if !PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
        let message = format!("{:?} is unknown: expected {}", port.protocol, PROTOCOLS.join(", "));
        checker.error(format!("{at}.protocol"), message);
    }
    if port.target_port > 0 {
        let message = "has no effect: the targetPort of the Service in front of the gateway counts";
        checker.error(format!("{at}.targetPort"), message);
    }
}

/// `HOST` or `NAMESPACE/HOST`.
fn host(field: &str, host: &str, checker: &mut Checker) {
    let name = match host.split_once('/') {
        None => host,
        Some((namespace, name)) => {
            if !matches!(namespace, "*" | ".") && !is_dns_label(namespace) {
                let message = format!("{namespace:?} is not a namespace: expected a name, \".\" or \"*\"");
                checker.error(field, message);
            }
            name
        }
    };
    if name == "*" || name.parse::<IpAddr>().is_ok() {
        return;
    }
    if !name.contains('.') {
        let message = format!("{name:?} is a short name: write it in full, such as {name}.example.com");
        checker.error(field, message);
    } else if name.starts_with('*') && !name.starts_with("*.") {
        let message = format!("{name:?} has a part of a label after \"*\": expected *.example.com");
        checker.error(field, message);
    } else {
        checker.host(field, name);
    }
}

#[cfg(test)]
mod tests;
