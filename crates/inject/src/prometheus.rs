//! Prometheus scrapes the agent, which merges the application's metrics with
//! Envoy's: the pod's own annotations go to the agent, and ours in their place.

use mesh::MeshConfig;
use serde::Serialize;
use serde_json::Value;

use crate::annotation;
use crate::pod;

/// Variable that tells the agent what to scrape.
pub(crate) const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Variable that names the port of merged metrics over TLS.
const SECURE_PORT: &str = "ENVOY_SECURE_MERGED_METRICS_PORT";

const SCRAPE: &str = "prometheus_io_scrape";
const PORT: &str = "prometheus_io_port";
const PATH: &str = "prometheus_io_path";
const TARGETS: &str = "prometheus_istio_io_scrape_targets";
const OWN_SECURE_PORT: &str = "prometheus_istio_io_secure_port";

/// Ports of the proxy that are no application's, and what they are for.
const RESERVED: [(u16, &str); 9] = [
    (15000, "Envoy's admin interface"),
    (15001, "captured outbound traffic"),
    (15004, "debugging"),
    (15006, "captured inbound traffic"),
    (15008, "tunnels"),
    (15020, "the merged metrics themselves"),
    (15021, "health of Envoy"),
    (15053, "DNS"),
    (15090, "Envoy's metrics, which are merged anyway"),
];

/// A port that cannot be scraped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It is none.
    #[error("annotation for Prometheus: {0:?} is not a port: expected 1 to 65535")]
    NotAPort(String),
    /// It is one of the proxy's.
    #[error(
        "annotation for Prometheus: port {port} is the proxy's own ({what}): name a port of the application"
    )]
    Reserved {
        /// Which.
        port: u16,
        /// What it is for.
        what: &'static str,
    },
}

#[derive(Debug, Serialize)]
struct Target {
    port: String,
    path: String,
}

/// What the agent scrapes.
#[derive(Debug, Default, Serialize)]
struct Wish {
    scrape: String,
    path: String,
    port: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
}

/// Prometheus knows an annotation by its letters and digits only, so that
/// several spellings are the same.
fn sanitized(key: &str) -> String {
    key.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// The value of the first annotation that Prometheus takes for this one.
fn value<'a>(pod: &'a Value, wanted: &str) -> Option<&'a str> {
    let all = pod["metadata"]["annotations"].as_object()?;
    all.iter().find(|(key, _)| sanitized(key) == wanted).and_then(|(_, value)| value.as_str())
}

/// Takes away what Prometheus would read.
fn clear(pod: &mut Value) {
    if let Some(all) = pod.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        all.retain(|key, _| ![SCRAPE, PORT, PATH, TARGETS].contains(&sanitized(key).as_str()));
    }
}

/// Takes an earlier injection's annotations away.
pub(crate) fn strip(pod: &mut Value, agent: i64) {
    if value(pod, PORT) == Some(&agent.to_string()) {
        clear(pod);
    }
}

/// Points Prometheus to the agent, and the agent to the application.
pub(crate) fn merge(pod: &mut Value, mesh: &MeshConfig, agent: i64) -> Result<(), Error> {
    let own = pod["metadata"]["annotations"][names::annotation::PROMETHEUS_MERGE].as_str();
    let of_mesh = mesh.enable_prometheus_merge.as_ref().is_none_or(|value| value.value);
    let is_on = own.and_then(annotation::boolean).unwrap_or(of_mesh);
    let is_scraped = value(pod, SCRAPE).and_then(annotation::boolean).unwrap_or(true);
    let agent = agent.to_string();
    // The agent's port stands there already: the pod was injected before, or its
    // owner knows what he does.
    if !is_on || !is_scraped || value(pod, PORT) == Some(&agent) {
        return Ok(());
    }
    let mut wish = Wish {
        scrape: value(pod, SCRAPE).unwrap_or_default().to_owned(),
        path: value(pod, PATH).unwrap_or_default().to_owned(),
        port: value(pod, PORT).unwrap_or_default().to_owned(),
        targets: value(pod, TARGETS).and_then(targets).unwrap_or_default(),
    };
    if let Some(first) = wish.targets.first() {
        wish.port.clone_from(&first.port);
        wish.path.clone_from(&first.path);
        wish.targets.iter().try_for_each(|target| check(&target.port, &agent))?;
    } else if !wish.port.is_empty() {
        check(&wish.port, &agent)?;
    }
    let is_empty = wish.scrape.is_empty() && wish.path.is_empty() && wish.port.is_empty();
    if !is_empty && let Some(proxy) = pod::proxy_mut(pod) {
        // These are strings only.
        let text = serde_json::to_string(&wish).unwrap_or_default();
        pod::list_in(proxy, "env").push(serde_json::json!({"name": VARIABLE, "value": text}));
    }
    clear(pod);
    let all = pod::metadata_map(pod, "annotations");
    for (key, value) in [("port", agent.as_str()), ("path", "/stats/prometheus"), ("scrape", "true")] {
        all.insert(format!("prometheus.io/{key}"), value.into());
    }
    Ok(())
}

/// `port[:path]`, separated by commas; nothing when one has no port.
fn targets(text: &str) -> Option<Vec<Target>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
            let (port, path) = (port.trim(), path.trim());
            let path = if path.is_empty() { "/metrics" } else { path };
            (!port.is_empty()).then(|| Target { port: port.to_owned(), path: path.to_owned() })
        })
        .collect()
}

fn check(text: &str, agent: &str) -> Result<(), Error> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let port: u16 =
        digits.parse().ok().filter(|port| *port != 0).ok_or_else(|| Error::NotAPort(text.to_owned()))?;
    if port.to_string() == agent {
        return Err(Error::Reserved { port, what: "the merged metrics themselves" });
    }
    match RESERVED.iter().find(|(reserved, _)| *reserved == port) {
        Some((port, what)) => Err(Error::Reserved { port: *port, what }),
        None => Ok(()),
    }
}

/// Names the port of merged metrics over TLS where the proxy has one.
pub(crate) fn secure_port(pod: &mut Value) {
    if value(pod, OWN_SECURE_PORT).is_some() {
        return;
    }
    let variables = pod::container(pod, pod::PROXY).and_then(|proxy| proxy["env"].as_array());
    let port = variables
        .into_iter()
        .flatten()
        .filter(|variable| pod::name(variable) == SECURE_PORT)
        .filter_map(|variable| variable["value"].as_str())
        .find(|port| !port.is_empty() && *port != "0")
        .map(str::to_owned);
    if let Some(port) = port {
        let all = pod::metadata_map(pod, "annotations");
        all.insert(names::annotation::PROMETHEUS_SECURE_PORT.into(), port.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "istio-proxy"}]}})
    }

    #[test]
    fn annotations_of_any_spelling_go_to_the_agent() {
        let mut pod = pod(&json!({"prometheus.io.port": "9090", "prometheus-io/path": "/m", "other": "x"}));
        merge(&mut pod, &MeshConfig::default(), 15020).unwrap();
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"other": "x", "prometheus.io/path": "/stats/prometheus", "prometheus.io/port": "15020",
                "prometheus.io/scrape": "true"})
        );
        let told = pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap();
        assert_eq!(told, "{\"scrape\":\"\",\"path\":\"/m\",\"port\":\"9090\"}");
    }

    #[test]
    fn several_targets_can_be_named() {
        let mut pod = pod(&json!({"prometheus.istio.io/scrape-targets": " 80:/a , 81 "}));
        merge(&mut pod, &MeshConfig::default(), 15020).unwrap();
        let told = pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(told).unwrap(),
            json!({"scrape": "", "path": "/a", "port": "80",
                "targets": [{"port": "80", "path": "/a"}, {"port": "81", "path": "/metrics"}]})
        );
    }

    #[test]
    fn ports_of_the_proxy_are_refused() {
        for (port, is_refused) in [("15090", true), ("x", true), ("0", true), ("80", false), ("15020", false)]
        {
            let mut pod = pod(&json!({"prometheus.io/port": port}));
            assert_eq!(merge(&mut pod, &MeshConfig::default(), 15020).is_err(), is_refused, "{port}");
        }
        let mut pod = pod(&json!({"prometheus.istio.io/scrape-targets": "15020"}));
        assert!(merge(&mut pod, &MeshConfig::default(), 15020).is_err());
    }

    #[test]
    fn the_owner_may_say_no() {
        for annotations in
            [json!({"prometheus.io/scrape": "false"}), json!({"prometheus.istio.io/merge-metrics": "false"})]
        {
            let mut pod = pod(&annotations);
            merge(&mut pod, &MeshConfig::default(), 15020).unwrap();
            assert_eq!(pod["metadata"]["annotations"], annotations);
        }
    }
}
