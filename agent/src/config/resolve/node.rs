//! Who the proxy is, as it tells istiod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::{NodeId, NodeType};
use proto::istio::mesh::v1alpha1::AuthenticationPolicy;
use serde_json::{Map, Value, json};

use super::super::env::{self, Reader};
use super::super::node::{self, Family, Node, metadata};
use super::super::{ISTIO_VERSION, ProxyConfig};
use super::{ISTIOD_NAME, Inputs, PORT, host};
use crate::envoy::module;

pub(super) fn node(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Option<Node> {
    let node_type = node_type(&inputs.args.role, reader);
    let ips = ips(inputs, reader);
    let namespace = reader.text(env::POD_NAMESPACE).to_owned();
    let name = reader.text(env::POD_NAME).to_owned();
    if name.is_empty() {
        let name = env::POD_NAME.name;
        reader.warning(format!(
            "{name} is not set: istiod cannot tell which pod this is; set it to the pod's name"
        ));
    }
    let domain = if inputs.args.domain.is_empty() {
        format!("{namespace}.svc.cluster.local")
    } else {
        inputs.args.domain.clone()
    };
    let sources = metadata::Sources {
        labels: inputs.labels,
        annotations: inputs.annotations,
        meta: reader.with_prefix(env::META),
        objects: objects(reader),
    };
    let (mut metadata, errors) = metadata::build(sources);
    errors.into_iter().for_each(|error| reader.error(error));
    own(&mut metadata, inputs, proxy, &ips, reader);

    let labels = known_labels(&metadata);
    let workload = metadata.get("WORKLOAD_NAME").and_then(Value::as_str).unwrap_or_default();
    let cluster = node::service_cluster(proxy, &labels, workload, &namespace);
    let dual = reader.flag(env::ISTIO_DUAL_STACK);
    let ip = *ips.first()?;
    Some(Node {
        id: NodeId { node_type: node_type?, ip, name, namespace, domain },
        cluster,
        locality: node::locality(node::locality_label(&labels).as_deref()),
        metadata,
        family: Family::of(&ips, dual),
        ips,
    })
}

fn node_type(role: &str, reader: &mut Reader<'_>) -> Option<NodeType> {
    match role.parse() {
        Ok(node_type) => return Some(node_type),
        Err(_) if role == "waypoint" => reader.error(
            "proxy role \"waypoint\": not supported: a waypoint needs extensions that stock Envoy lacks; use sidecar or router".into(),
        ),
        Err(_) => reader.error(format!("proxy role {role:?}: expected sidecar or router")),
    }
    None
}

/// Metadata that the agent itself knows.
fn own(
    metadata: &mut Map<String, Value>,
    inputs: &Inputs<'_>,
    proxy: &ProxyConfig,
    ips: &[IpAddr],
    reader: &mut Reader<'_>,
) {
    // Only an Envoy that has it may say so; that is known later.
    metadata.remove(module::METADATA);
    metadata.entry("ISTIO_VERSION").or_insert_with(|| json!(ISTIO_VERSION));
    let mut put = |name: &str, value: Value| drop(metadata.insert(name.into(), value));
    let joined: Vec<String> = ips.iter().map(ToString::to_string).collect();
    put("INSTANCE_IPS", json!(joined.join(",")));
    // The extension that would discover it is not in stock Envoy.
    put("METADATA_DISCOVERY", json!("false"));
    put("NAMESPACE", json!(reader.text(env::POD_NAMESPACE)));
    put("PROXY_CONFIG", serde_json::to_value(proxy).unwrap_or_default());
    put("SERVICE_ACCOUNT", json!(reader.text(env::SERVICE_ACCOUNT)));
    put("WORKLOAD_IDENTITY_SOCKET_FILE", json!(reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE)));
    let texts = [
        ("NAME", reader.text(env::POD_NAME)),
        ("OUTLIER_LOG_PATH", &inputs.args.outlier_log_path),
        ("DNS_PROXY_ADDR", inputs.env.get("DNS_PROXY_ADDR").map_or("", String::as_str)),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(name, json!(text));
    }
    let ports = [
        ("ENVOY_STATUS_PORT", env::ENVOY_STATUS_PORT),
        ("ENVOY_PROMETHEUS_PORT", env::ENVOY_PROMETHEUS_PORT),
        ("ENVOY_SECURE_METRICS_PORT", env::ENVOY_SECURE_METRICS_PORT),
        ("ENVOY_SECURE_MERGED_METRICS_PORT", env::ENVOY_SECURE_MERGED_METRICS_PORT),
    ];
    for (name, variable) in ports {
        let port: u16 = reader.parse(variable, PORT);
        if port != 0 {
            put(name, json!(port));
        }
    }
    for variable in [env::ENVOY_SKIP_DEPRECATED_LOGS, env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS] {
        if reader.flag(variable) {
            put(variable.name, json!("true"));
        }
    }
    if proxy.control_plane_auth_policy == i32::from(AuthenticationPolicy::MutualTls) {
        let name = host(&proxy.discovery_address);
        // A local istiod has no certificate for that name.
        put("PILOT_SAN", json!([if name == "localhost" { ISTIOD_NAME } else { name }]));
    }
}

/// All labels, those that do not come from the pod as well.
fn known_labels(metadata: &Map<String, Value>) -> BTreeMap<String, String> {
    let labels = metadata.get("LABELS").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn ips(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    if let Some(text) = reader.set(env::INSTANCE_IP) {
        match text.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => reader.invalid(env::INSTANCE_IP, text, "an IP address"),
        }
    }
    for ip in inputs.addresses {
        if !ips.contains(ip) {
            ips.push(*ip);
        }
    }
    if ips.is_empty() {
        reader.error("no address: set INSTANCE_IP, or give the pod an interface with an address".into());
    }
    ips
}

fn objects(reader: &mut Reader<'_>) -> BTreeMap<String, Map<String, Value>> {
    let mut objects = BTreeMap::new();
    for (name, text) in reader.with_prefix(env::META_JSON) {
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => drop(objects.insert(name, object)),
            _ => reader.error(format!("{}{name}={text:?}: expected a JSON object", env::META_JSON)),
        }
    }
    objects
}
