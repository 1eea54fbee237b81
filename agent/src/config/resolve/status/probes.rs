//! Probes of the application (`ISTIO_KUBE_APP_PROBERS`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::super::env::{self, Reader};
use super::super::super::status::{Action, Probe, Probes};

/// First part of a path, and what may stand at its end.
const KINDS: [&str; 2] = ["app-health", "app-lifecycle"];
/// Names of probes and of hooks.
const NAMES: [&str; 5] = ["livez", "readyz", "startupz", "prestopz", "poststartz"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: i32,
}

#[derive(Deserialize)]
struct HttpGet {
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: Value,
    #[serde(default)]
    scheme: String,
}

#[derive(Deserialize)]
struct TcpSocket {
    #[serde(default)]
    port: Value,
}

#[derive(Deserialize)]
struct Grpc {
    #[serde(default)]
    port: Value,
    service: Option<String>,
}

pub(super) fn probes(reader: &mut Reader<'_>) -> Option<Probes> {
    let is_legacy = reader.flag(env::REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION);
    let keepalive = reader.flag(env::ENABLE_PROBE_KEEPALIVE_CONNECTIONS);
    let http2 = reader.flag(env::ISTIO_ENABLE_HTTP2_PROBING);
    let variable = env::ISTIO_KUBE_APP_PROBERS;
    let text = reader.set(variable)?;
    let (by_path, errors) = read(text);
    for error in errors {
        reader.error(format!("{}: {error}", variable.name));
    }
    let address = reader.set(env::INSTANCE_IP).and_then(|text| text.parse().ok());
    let destination = address.filter(|_| !is_legacy);
    (!by_path.is_empty()).then_some(Probes { by_path, destination, keepalive, http2 })
}

/// The probes of a JSON text, and what is wrong with it.
pub(super) fn read(text: &str) -> (BTreeMap<String, Probe>, Vec<String>) {
    // Entries one by one, so that an error can name its own.
    let entries: BTreeMap<String, Value> = match serde_json::from_str(text) {
        Ok(entries) => entries,
        Err(error) => {
            let expected = "expected JSON such as {\"/app-health/web/livez\":{\"httpGet\":{\"port\":8080}}}";
            return (BTreeMap::new(), vec![format!("{text:?}: {expected}: {error}")]);
        }
    };
    let (mut probes, mut errors) = (BTreeMap::new(), Vec::new());
    for (path, value) in entries {
        match probe(&path, value) {
            Ok(probe) => drop(probes.insert(path, probe)),
            Err(error) => errors.push(format!("{path:?}: {error}")),
        }
    }
    (probes, errors)
}

fn probe(path: &str, value: Value) -> Result<Probe, String> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", kind, container, name]
            if KINDS.contains(&kind) && NAMES.contains(&name) && !container.is_empty() => {}
        _ => {
            return Err(
                "expected /app-health/CONTAINER/ or /app-lifecycle/CONTAINER/ and livez, readyz, startupz, prestopz or poststartz"
                    .into(),
            );
        }
    }
    let entry: Entry = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let action = match (entry.http_get, entry.tcp_socket, entry.grpc) {
        (Some(http), None, None) => {
            let path = if http.path.starts_with('/') { http.path } else { format!("/{}", http.path) };
            path.parse::<http::Uri>().map_err(|error| format!("path {path:?}: {error}"))?;
            Action::Http { is_tls: http.scheme == "HTTPS", port: port(&http.port)?, path }
        }
        (None, Some(tcp), None) => Action::Tcp { port: port(&tcp.port)? },
        (None, None, Some(grpc)) => {
            Action::Grpc { port: port(&grpc.port)?, service: grpc.service.unwrap_or_default() }
        }
        _ => return Err("expected one of httpGet, tcpSocket and grpc".into()),
    };
    // One second is the kubelet's own default; hooks have no limit there.
    let fallback = path.starts_with("/app-health/").then_some(Duration::from_secs(1));
    let seconds =
        u64::try_from(entry.timeout_seconds).map_err(|_| "timeoutSeconds: expected no negative number")?;
    let timeout = if seconds == 0 { fallback } else { Some(Duration::from_secs(seconds)) };
    Ok(Probe { action, timeout })
}

fn port(value: &Value) -> Result<u16, String> {
    let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| format!("port {value}: expected a number from 1 to 65535"))
}
