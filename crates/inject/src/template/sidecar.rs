//! The template `sidecar`: a proxy beside the application, and the init
//! container that leads traffic to it.

use names::{annotation, label};
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::Provider;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::ServiceAttributeEnrichment;
use serde_json::{Map, Value, json};

use super::common::{self, Variables, resources};
use super::container::{self, READY_PORT, optional, pull_policy};
use super::volume::{self, Role};
use super::{Context, Error, init};
use crate::pod;

pub(super) fn build(context: &Context<'_>) -> Result<Value, Error> {
    let mode = context.mode();
    let is_native = context.is_native();
    let mut labels = common::canonical(context);
    let tls = context.label(label::TLS_MODE).unwrap_or(label::TLS_MODE_ISTIO);
    labels.insert(label::TLS_MODE.into(), tls.into());
    if variable(context, "ISTIO_META_ENABLE_HBONE") == "true" {
        labels.insert(label::TUNNEL.into(), context.label(label::TUNNEL).unwrap_or("http").into());
    }
    let mut annotations = common::annotations(context);
    // Who wrote the values knows whether their image has the module; of a pod's own image
    // only the pod can say it.
    let peer_metadata = context.setting(annotation::PEER_METADATA, "global.proxy.peerMetadata");
    if !peer_metadata.is_empty() && context.annotation(annotation::PROXY_IMAGE).is_none() {
        annotations.insert(annotation::PEER_METADATA.into(), peer_metadata.into());
    }
    if context.uses_cni() {
        cni(context, &mode, &mut annotations);
    }
    let proxy = proxy(context, &mode, is_native)?;
    let mut init_containers = Vec::new();
    if mode != "NONE" {
        init_containers.push(init::build(context, &mode));
    }
    let mut spec = json!({"volumes": volume::volumes(context, Role::Sidecar)?});
    if is_native {
        init_containers.push(proxy);
    } else {
        spec["containers"] = json!([proxy]);
    }
    if !init_containers.is_empty() {
        spec["initContainers"] = init_containers.into();
    }
    let secrets = volume::pull_secrets(context);
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.into();
    }
    Ok(json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}))
}

/// A variable of the mesh or of the pod's annotation.
fn variable<'a>(context: &'a Context<'_>, name: &str) -> &'a str {
    context.proxy.proxy_metadata.get(name).map_or("", String::as_str)
}

/// What the CNI plugin reads.
fn cni(context: &Context<'_>, mode: &str, annotations: &mut Map<String, Value>) {
    if context.value("pilot.cni.provider") == "multus" {
        let networks = context.annotation(annotation::MULTUS_NETWORKS).unwrap_or_default();
        annotations.insert(annotation::MULTUS_NETWORKS.into(), multus(networks).into());
    }
    let mut set = |key: &str, value: String| drop(annotations.insert(key.to_owned(), value.into()));
    set(annotation::INTERCEPTION_MODE, mode.to_owned());
    for (key, path) in [
        (annotation::INCLUDE_OUTBOUND_IP_RANGES, "global.proxy.includeIPRanges"),
        (annotation::EXCLUDE_OUTBOUND_IP_RANGES, "global.proxy.excludeIPRanges"),
    ] {
        let value = context.setting(key, path);
        if !value.is_empty() {
            set(key, value);
        }
    }
    let included = annotation::INCLUDE_INBOUND_PORTS;
    set(included, context.setting(included, "global.proxy.includeInboundPorts"));
    set(annotation::EXCLUDE_INBOUND_PORTS, init::excluded_inbound(context));
    for (key, path) in [
        (annotation::INCLUDE_OUTBOUND_PORTS, "global.proxy.includeOutboundPorts"),
        (annotation::EXCLUDE_OUTBOUND_PORTS, "global.proxy.excludeOutboundPorts"),
    ] {
        if let Some(value) = init::given(context, key, path) {
            set(key, value);
        }
    }
}

/// The networks of Multus with ours among them; what cannot be read stays.
fn multus(networks: &str) -> String {
    const NAMESPACE: &str = "default";
    const NAME: &str = "istio-cni";
    if networks.is_empty() {
        return format!("{NAMESPACE}/{NAME}");
    }
    if !networks.contains(']') {
        let ours = format!("{NAMESPACE}/{NAME}");
        if networks.split(',').any(|known| known.trim() == ours) {
            return networks.to_owned();
        }
        return format!("{networks}, {ours}");
    }
    let Ok(list) = serde_json::from_str::<Vec<Map<String, Value>>>(networks) else {
        return networks.to_owned();
    };
    let is_ours = |one: &Map<String, Value>| {
        one.get("name").is_some_and(|name| name == NAME)
            && one.get("namespace").is_some_and(|namespace| namespace == NAMESPACE)
    };
    let Some(end) = networks.rfind(']').filter(|_| !list.iter().any(is_ours)) else {
        return networks.to_owned();
    };
    // What the user wrote stays as it is, spaces included.
    let comma = if list.is_empty() { "" } else { ", " };
    let (before, after) = networks.split_at(end);
    format!("{before}{comma}{{\"name\": \"{NAME}\", \"namespace\": \"{NAMESPACE}\"}}{after}")
}

fn proxy(context: &Context<'_>, mode: &str, is_native: bool) -> Result<Value, Error> {
    let mut args = container::args(context, "sidecar");
    let outliers = context.value("global.proxy.outlierLogPath");
    if !outliers.is_empty() {
        args.push(format!("--outlierLogPath={outliers}"));
    }
    let mut proxy = json!({
        "name": pod::PROXY,
        "image": context.proxy_image(),
        "args": args,
        "ports": [{"containerPort": names::port::ENVOY_PROMETHEUS, "protocol": "TCP", "name": "http-envoy-prom"}],
        "env": variables(context),
        "securityContext": security(context, mode == "TPROXY"),
        "volumeMounts": volume::mounts(context, Role::Sidecar)?,
    });
    if is_native {
        proxy["restartPolicy"] = "Always".into();
    }
    optional(&mut proxy, "lifecycle", lifecycle(context, is_native));
    optional(&mut proxy, "imagePullPolicy", pull_policy(context));
    optional(&mut proxy, "resources", resources(context));
    if context.status_port() != "0" {
        if context.is_on("global.proxy.startupProbe.enabled") {
            let failures = context.value("global.proxy.startupProbe.failureThreshold");
            proxy["startupProbe"] = container::probe(READY_PORT, "0", "1", &failures);
        }
        proxy["readinessProbe"] = container::readiness(context, READY_PORT);
    }
    Ok(proxy)
}

/// What is done when the proxy has started, and when the pod ends.
fn lifecycle(context: &Context<'_>, is_native: bool) -> Option<Value> {
    if let Some(own) = context.settings.values.given("global.proxy.lifecycle") {
        return Some(own.clone());
    }
    let command = |words: &[&str]| json!({"exec": {"command": words}});
    if is_native {
        // The application ends first; the proxy begins to drain with it.
        let port = format!("--debug-port={}", context.status_port());
        return Some(json!({"preStop": command(&["pilot-agent", "request", &port, "POST", "drain"])}));
    }
    let holds = context.proxy.hold_application_until_proxy_starts.as_ref().is_some_and(|value| value.value)
        || context.is_on("global.proxy.holdApplicationUntilProxyStarts");
    holds.then(|| json!({"postStart": command(&["pilot-agent", "wait"])}))
}

fn variables(context: &Context<'_>) -> Value {
    let mut all = Variables::default();
    container::localhost(context, &mut all);
    container::identity(context, &mut all);
    all.limit("ISTIO_CPU_LIMIT", "limits.cpu");
    container::settings(context, &mut all);
    container::app_containers(context, &mut all);
    all.limit("GOMEMLIMIT", "limits.memory");
    container::compliance(context, &mut all);
    container::place(context, &mut all);
    let mode = context.annotation(annotation::INTERCEPTION_MODE).filter(|mode| !mode.is_empty());
    all.value("ISTIO_META_INTERCEPTION_MODE", mode.unwrap_or_else(|| context.mesh_mode()));
    all.some("ISTIO_META_NETWORK", &context.value("global.network"));
    let name = context.label(label::WORKLOAD_NAME).unwrap_or(&context.owner.name);
    container::workload(context, &mut all, name);
    if context.annotation(annotation::BOOTSTRAP_OVERRIDE).is_some() {
        all.value("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json");
    }
    container::mesh(context, &mut all);
    if context.value("global.proxy.tracer") == "datadog" {
        datadog(context, &mut all);
    }
    all.some("OTEL_RESOURCE_ATTRIBUTES", &open_telemetry(context).unwrap_or_default());
    all.metadata(context);
    all.build()
}

/// Variables of Datadog's library, from its annotation.
fn datadog(context: &Context<'_>, all: &mut Variables) {
    let own = context.annotation("apm.datadoghq.com/env");
    let own = own.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    for (name, value) in own.iter().flatten() {
        all.value(name, &crate::settings::scalar(value));
    }
}

/// What OpenTelemetry calls the workload, when a provider asks for it.
fn open_telemetry(context: &Context<'_>) -> Option<String> {
    let is_wanted = context.mesh.extension_providers.iter().any(|provider| {
        matches!(&provider.provider, Some(Provider::Opentelemetry(otel))
            if otel.service_attribute_enrichment() == ServiceAttributeEnrichment::OtelSemanticConventions)
    });
    if !is_wanted {
        return None;
    }
    let own = |name: &str| {
        let value = context.annotation(&format!("resource.opentelemetry.io/service.{name}"));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let containers = pod::list(context.pod, pod::CONTAINERS);
    let namespace = &context.owner.namespace;
    let mut attributes = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        attributes.extend(value.map(|value| format!("service.{name}={value}")));
    };
    add("namespace", own("namespace").or_else(|| (!namespace.is_empty()).then(|| namespace.clone())));
    let version = own("version").or_else(|| context.label(label::APP_VERSION).map(str::to_owned));
    add("version", version.or_else(|| image_version(containers)));
    let first = containers.first().map(|first| format!("{namespace}.$(POD_NAME).{}", pod::name(first)));
    add("instance.id", own("instance.id").or(first));
    Some(attributes.join(","))
}

/// Tag and digest of the only container's image.
fn image_version(containers: &[Value]) -> Option<String> {
    let [only] = containers else { return None };
    let image = only["image"].as_str().unwrap_or_default();
    let (image, digest) = image.split_once('@').unwrap_or((image, ""));
    // A colon before the last slash is that of a registry's port.
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
    match (tag, digest) {
        ("", "") => None,
        (tag, "") => Some(tag.to_owned()),
        ("", digest) => Some(digest.to_owned()),
        (tag, digest) => Some(format!("{tag}@{digest}")),
    }
}

fn security(context: &Context<'_>, is_tproxy: bool) -> Value {
    let mut security = if variable(context, "IPTABLES_TRACE_LOGGING") == "true" {
        json!({"allowPrivilegeEscalation": true, "privileged": true, "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "runAsGroup": context.gid, "runAsNonRoot": false, "runAsUser": 0})
    } else {
        let key = annotation::CAP_NET_BIND_SERVICE;
        let binds = context.setting(key, "global.proxy.capNetBindService") == "true";
        let privileged = context.is_on("global.proxy.privileged");
        let mut capabilities = json!({"drop": ["ALL"]});
        let added: Vec<&str> = [(is_tproxy, "NET_ADMIN"), (binds, "NET_BIND_SERVICE")]
            .iter()
            .filter_map(|(is_on, name)| is_on.then_some(*name))
            .collect();
        let is_root = !added.is_empty();
        if is_root {
            capabilities["add"] = json!(added);
        }
        let (uid, gid) =
            if is_root { (0, i64::from(names::port::PROXY_UID)) } else { (context.uid, context.gid) };
        json!({"allowPrivilegeEscalation": privileged, "privileged": privileged,
            "readOnlyRootFilesystem": true, "capabilities": capabilities,
            "runAsNonRoot": !is_root, "runAsUser": uid, "runAsGroup": gid})
    };
    let profile = context.settings.values.given("global.proxy.seccompProfile").cloned();
    optional(&mut security, "seccompProfile", profile);
    security
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_multus_are_kept() {
        assert_eq!(multus(""), "default/istio-cni");
        assert_eq!(multus("a, b"), "a, b, default/istio-cni");
        assert_eq!(multus("a, default/istio-cni"), "a, default/istio-cni");
        let added: Value = serde_json::from_str(&multus("[{\"name\":\"a\"}]")).unwrap();
        assert_eq!(added, json!([{"name": "a"}, {"name": "istio-cni", "namespace": "default"}]));
        assert_eq!(multus("[]"), "[{\"name\": \"istio-cni\", \"namespace\": \"default\"}]");
        let same = "[{\"name\": \"istio-cni\", \"namespace\": \"default\"}]";
        assert_eq!(multus(same), same);
        assert_eq!(multus("[broken]"), "[broken]");
    }

    #[test]
    fn versions_are_told_from_images() {
        let of = |image: &str| image_version(&[json!({"image": image})]);
        assert_eq!(of("r:5000/a/b"), None);
        assert_eq!(of("r:5000/a/b:1.2").unwrap(), "1.2");
        assert_eq!(of("a@sha256:x").unwrap(), "sha256:x");
        assert_eq!(of("a:1@sha256:x").unwrap(), "1@sha256:x");
    }
}
