//! The `ProxyConfig` of a pod: settings of the mesh, objects of that kind, and
//! the pod's annotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Object, Spec, Store};
use mesh::{MeshConfig, ProxyConfig};
use serde_json::{Map, Value};

/// Whether the annotation can be used.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let base = mesh::proxy_config::defaults();
    let (config, _) = mesh::proxy_config::apply(&base, text).map_err(|error| error.to_string())?;
    if config.discovery_address.is_empty() {
        return Err("discoveryAddress is empty: name istiod, HOST:PORT".into());
    }
    if config.config_path.is_empty() || config.binary_path.is_empty() {
        return Err("configPath and binaryPath cannot be empty".into());
    }
    if config.drain_duration.is_none_or(|time| time.seconds < 1 || time.nanos != 0) {
        return Err("drainDuration: expected whole seconds, at least 1s".into());
    }
    for (field, port) in [("statusPort", config.status_port), ("proxyAdminPort", config.proxy_admin_port)] {
        if !(1..=65535).contains(&port) {
            return Err(format!("{field}: {port} is not a port: expected 1 to 65535"));
        }
    }
    for (field, address) in [
        ("discoveryAddress", config.discovery_address.as_str()),
        ("statsdUdpAddress", config.statsd_udp_address.as_str()),
        (
            "envoyMetricsService.address",
            config.envoy_metrics_service.as_ref().map_or("", |service| service.address.as_str()),
        ),
        (
            "envoyAccessLogService.address",
            config.envoy_access_log_service.as_ref().map_or("", |service| service.address.as_str()),
        ),
    ] {
        let port = address.rsplit_once(':').map(|(_, port)| port);
        if !address.is_empty() && port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0)
        {
            return Err(format!("{field}: {address:?} is not HOST:PORT"));
        }
    }
    Ok(())
}

/// The settings of a pod without objects: those of the mesh and the annotation.
///
/// # Errors
/// When the annotation cannot be used.
pub fn of_annotation(mesh: &MeshConfig, annotation: Option<&str>) -> Result<ProxyConfig, mesh::yaml::Error> {
    let base = mesh.default_config.clone().unwrap_or_else(mesh::proxy_config::defaults);
    match annotation {
        Some(text) => Ok(mesh::proxy_config::apply(&base, text)?.0),
        None => Ok(base),
    }
}

/// The settings of a pod: those of the mesh, then the object of the root
/// namespace, that of the pod's namespace, the annotation, and the object that
/// selects the pod. An annotation that cannot be used is left out here:
/// injection refuses the pod for it.
#[must_use]
pub fn effective(mesh: &MeshConfig, store: &Store, pod: &Value, namespace: &str) -> ProxyConfig {
    let labels = crate::pod::strings(pod, "labels");
    let annotation = pod["metadata"]["annotations"][names::annotation::PROXY_CONFIG].as_str();
    let mut objects: Vec<&Arc<Object>> =
        store.objects().filter(|object| matches!(object.spec, Spec::ProxyConfig(_))).collect();
    objects.sort_by_key(|object| {
        (object.meta.creation_timestamp.clone(), object.key.name.clone(), object.key.namespace.clone())
    });
    let of_namespace = |namespace: &str| layer(&objects, namespace, None);
    let root = mesh.root_namespace.as_str();
    let mut config = mesh.default_config.clone().unwrap_or_else(mesh::proxy_config::defaults);
    let mut lay = |text: Option<String>| {
        if let Some(text) = text
            && let Ok((next, _)) = mesh::proxy_config::apply(&config, &text)
        {
            config = next;
        }
    };
    lay((!root.is_empty()).then(|| of_namespace(root)).flatten());
    lay((namespace != root).then(|| of_namespace(namespace)).flatten());
    lay(annotation.map(str::to_owned));
    lay(layer(&objects, namespace, Some(&labels)));
    config
}

/// The first object of a namespace, either without a selector or with one that
/// selects the labels, as settings of a proxy in JSON.
fn layer(
    objects: &[&Arc<Object>],
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> Option<String> {
    let found = objects.iter().filter(|object| &*object.key.namespace == namespace).find_map(|object| {
        let Spec::ProxyConfig(config) = &object.spec else { return None };
        let wanted = config.selector.as_ref().map(|selector| &selector.match_labels);
        let fits = match (wanted, labels) {
            (None, None) => true,
            (Some(wanted), Some(labels)) => !wanted.is_empty() && config::matches(wanted, labels),
            _ => false,
        };
        fits.then_some(config)
    })?;
    let mut all = Map::new();
    if let Some(concurrency) = &found.concurrency {
        all.insert("concurrency".into(), concurrency.value.into());
    }
    if !found.environment_variables.is_empty() {
        let variables = found.environment_variables.iter();
        let variables = variables.map(|(name, value)| (name.clone(), Value::from(value.clone())));
        all.insert("proxyMetadata".into(), Value::Object(variables.collect()));
    }
    if let Some(image) = &found.image {
        all.insert("image".into(), serde_json::json!({"imageType": image.image_type}));
    }
    // JSON is YAML.
    Some(Value::Object(all).to_string())
}

/// Fields that the agent has the same defaults of, so that they are not told.
const DEFAULTS: [&str; 13] = [
    "configPath",
    "binaryPath",
    "controlPlaneAuthPolicy",
    "serviceCluster",
    "drainDuration",
    "terminationDrainDuration",
    "discoveryAddress",
    "envoyMetricsService",
    "envoyAccessLogService",
    "tracing",
    "proxyAdminPort",
    "statNameLength",
    "statusPort",
];

/// The settings as the variable `PROXY_CONFIG` carries them to the agent.
pub(crate) fn variable(config: &ProxyConfig) -> String {
    let json = |config: &ProxyConfig| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let defaults = json(&mesh::proxy_config::defaults());
    let mut all = json(config);
    all.retain(|field, value| !DEFAULTS.contains(&field.as_str()) || defaults.get(field) != Some(value));
    format!("{}\n", Value::Object(all))
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;

    #[test]
    fn the_object_that_selects_a_pod_wins_over_its_annotation() {
        let text = "
apiVersion: networking.istio.io/v1
kind: ProxyConfig
metadata: {name: root, namespace: istio-system}
spec: {concurrency: 1, environmentVariables: {A: root, B: root}}
---
apiVersion: networking.istio.io/v1
kind: ProxyConfig
metadata: {name: some, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, concurrency: 3, image: {imageType: debug}}
";
        let mut store = Store::default();
        for object in yaml::read("x", text).objects {
            store.apply(object.into());
        }
        let mesh = MeshConfig::default();
        let pod = serde_json::json!({"metadata": {"labels": {"app": "web"}, "annotations":
            {"proxy.istio.io/config": "concurrency: 2\nproxyMetadata: {B: own}"}}});
        let config = effective(&mesh, &store, &pod, "shop");
        assert_eq!(config.concurrency.unwrap().value, 3);
        assert_eq!(config.image.unwrap().image_type, "debug");
        let variables: Vec<_> = config.proxy_metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(variables, ["A=root", "B=own"]);
        let other = serde_json::json!({"metadata": {"labels": {"app": "db"}}});
        assert_eq!(effective(&mesh, &store, &other, "shop").concurrency.unwrap().value, 1);
    }

    #[test]
    fn the_agent_is_told_what_is_not_its_default() {
        let mesh = MeshConfig::default();
        assert_eq!(variable(&of_annotation(&mesh, None).unwrap()), "{}\n");
        let config = of_annotation(&mesh, Some("drainDuration: 7s\nproxyMetadata: {A: b}")).unwrap();
        assert_eq!(variable(&config), "{\"drainDuration\":\"7s\",\"proxyMetadata\":{\"A\":\"b\"}}\n");
    }
}
