//! Which metrics are joined (`ISTIO_PROMETHEUS_ANNOTATIONS`).

use names::port;
use serde::Deserialize;

use super::super::super::env::{self, Reader};
use super::super::super::status::{Merge, Target};

/// Where metrics are when nobody says.
const DEFAULT_PORT: &str = "80";
/// The path that goes with it.
const DEFAULT_PATH: &str = "/metrics";
/// Ports of the mesh, on which no application has metrics.
const RESERVED: [(u16, &str); 9] = [
    (port::ENVOY_ADMIN, "Envoy admin"),
    (port::OUTBOUND, "outbound traffic"),
    (15004, "debug interface"),
    (port::INBOUND, "inbound traffic"),
    (port::INBOUND_TUNNEL, "HBONE tunnel"),
    (port::AGENT_STATUS, "the merged metrics themselves"),
    (port::ENVOY_HEALTH, "Envoy health"),
    (port::AGENT_DNS, "DNS proxy"),
    (port::ENVOY_PROMETHEUS, "Envoy's metrics, which are merged already"),
];

#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    targets: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    port: String,
    #[serde(default)]
    path: String,
}

/// A gateway's status port can be reached from outside: its application, if
/// any, is not scraped through it.
pub(super) fn merge(status_port: u16, is_sidecar: bool, runs_envoy: bool, reader: &mut Reader<'_>) -> Merge {
    let envoy = runs_envoy && reader.flag(env::PILOT_AGENT_MERGE_ENVOY_STATS);
    let none = Merge { envoy, targets: Vec::new() };
    let variable = env::ISTIO_PROMETHEUS_ANNOTATIONS;
    let Some(text) = reader.set(variable).filter(|_| is_sidecar) else { return none };
    let annotations: Annotations = match serde_json::from_str(text) {
        Ok(annotations) => annotations,
        Err(error) => {
            reader.invalid(
                variable,
                text,
                format!("JSON such as {{\"port\":\"8080\",\"path\":\"/metrics\"}}: {error}"),
            );
            return none;
        }
    };
    if annotations.scrape == "false" {
        return none;
    }
    let mut entries = annotations.targets;
    if entries.is_empty() {
        let port = if annotations.port.is_empty() { DEFAULT_PORT.into() } else { annotations.port };
        entries.push(Entry { port, path: annotations.path });
    }
    let mut targets = Vec::with_capacity(entries.len());
    for entry in entries {
        match target(&entry, status_port) {
            Ok(target) => targets.push(target),
            Err(reason) => reader.error(format!("{}: {reason}", variable.name)),
        }
    }
    Merge { envoy, targets }
}

fn target(entry: &Entry, status_port: u16) -> Result<Target, String> {
    let port = entry.port.parse::<u16>().ok().filter(|port| *port > 0);
    let port =
        port.ok_or_else(|| format!("port {:?} of the application: expected 1 to 65535", entry.port))?;
    let used = RESERVED.iter().find(|(reserved, _)| *reserved == port).map(|(_, use_)| *use_);
    let used = used.or((port == status_port).then_some("the agent's own"));
    if let Some(what) = used {
        return Err(format!(
            "port {port} of the application is one of the mesh ({what}); name the application's own in prometheus.io/port"
        ));
    }
    let path = match entry.path.as_str() {
        "" => DEFAULT_PATH.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    match path.parse::<http::Uri>() {
        Ok(_) => Ok(Target { port, path }),
        Err(error) => Err(format!("path {path:?} of the application: {error}")),
    }
}
