//! Parts of the proxy's container that sidecars and gateways share.

use names::annotation;
use proto::istio::mesh::v1alpha1::mesh_config::inbound_traffic_policy::Mode;
use serde_json::{Value, json};

use super::Context;
use super::common::{Variables, applications};
use crate::pod;
use crate::proxy_config;

/// Where Envoy answers whether it is ready.
pub(super) const READY_PORT: u16 = names::port::ENVOY_HEALTH;

/// Arguments that every kind of proxy has.
pub(super) fn args(context: &Context<'_>, role: &str) -> Vec<String> {
    let domain = context.value("global.proxy.clusterDomain");
    let level = context.setting(annotation::LOG_LEVEL, "global.proxy.logLevel");
    let parts = context.setting(annotation::COMPONENT_LOG_LEVEL, "global.proxy.componentLogLevel");
    let mut args = vec![
        "proxy".to_owned(),
        role.to_owned(),
        "--domain".to_owned(),
        format!("$(POD_NAMESPACE).svc.{domain}"),
        format!("--proxyLogLevel={level}"),
        format!("--proxyComponentLogLevel={parts}"),
        agent_log(context),
    ];
    if context.is_on("global.sts.servicePort") {
        args.push(format!("--stsPort={}", context.value("global.sts.servicePort")));
    }
    if context.is_on("global.logAsJson") {
        args.push("--log_as_json".to_owned());
    }
    args
}

/// The level of our own log.
pub(super) fn agent_log(context: &Context<'_>) -> String {
    format!("--log_output_level={}", context.setting(annotation::AGENT_LOG_LEVEL, "global.logging.level"))
}

/// Who signs certificates, and who the pod is.
pub(super) fn identity(context: &Context<'_>, variables: &mut Variables) {
    variables.value("PILOT_CERT_PROVIDER", &context.value("global.pilotCertProvider"));
    let address = context.value("global.caAddress");
    if address.is_empty() {
        let revision = context.value("revision");
        let dash = if revision.is_empty() { "" } else { "-" };
        let namespace = context.value("global.istioNamespace");
        variables.value("CA_ADDR", &format!("istiod{dash}{revision}.{namespace}.svc:15012"));
    } else {
        variables.value("CA_ADDR", &address);
    }
    variables
        .field("POD_NAME", "metadata.name")
        .field("POD_NAMESPACE", "metadata.namespace")
        .field("INSTANCE_IP", "status.podIP")
        .field("SERVICE_ACCOUNT", "spec.serviceAccountName")
        .field("HOST_IP", "status.hostIP");
}

/// Probes of applications that listen on the loopback only.
pub(super) fn localhost(context: &Context<'_>, variables: &mut Variables) {
    let policy = context.mesh.inbound_traffic_policy.as_ref();
    if policy.is_some_and(|policy| policy.mode() == Mode::Localhost) {
        variables.value("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true");
    }
}

/// The settings of the agent and the ports of the application.
pub(super) fn settings(context: &Context<'_>, variables: &mut Variables) {
    variables.value("PROXY_CONFIG", &proxy_config::variable(context.proxy));
    let containers = pod::list(context.pod, pod::CONTAINERS).iter();
    let ports: Vec<&Value> = containers.flat_map(|one| one["ports"].as_array()).flatten().collect();
    variables.value("ISTIO_META_POD_PORTS", &json!(ports).to_string());
}

/// The names of the application's containers.
pub(super) fn app_containers(context: &Context<'_>, variables: &mut Variables) {
    variables.value("ISTIO_META_APP_CONTAINERS", &applications(context).join(","));
}

/// Rules of cryptography that the user must keep to.
pub(super) fn compliance(context: &Context<'_>, variables: &mut Variables) {
    variables.some("COMPLIANCE_POLICY", &context.settings.compliance_policy);
    if context.settings.compliance_policy == "fips-140-3" {
        variables.value("GODEBUG", "fips140=only");
    }
}

/// The cluster and the node.
pub(super) fn place(context: &Context<'_>, variables: &mut Variables) {
    let cluster = context.value("global.multiCluster.clusterName");
    let cluster = if cluster.is_empty() { "Kubernetes" } else { &cluster };
    variables.value("ISTIO_META_CLUSTER_ID", cluster).field("ISTIO_META_NODE_NAME", "spec.nodeName");
}

/// The workload and its owner.
pub(super) fn workload(context: &Context<'_>, variables: &mut Variables, name: &str) {
    let owner = context.owner;
    variables.some("ISTIO_META_WORKLOAD_NAME", name);
    if !owner.api_version.is_empty() && !owner.name.is_empty() {
        let namespace = if owner.namespace.is_empty() { "default" } else { &owner.namespace };
        let (version, kind) = (&owner.api_version, owner.kind.to_lowercase());
        let path = format!("kubernetes://apis/{version}/namespaces/{namespace}/{kind}s/{}", owner.name);
        variables.value("ISTIO_META_OWNER", &path);
    }
}

/// The mesh and its trust domain.
pub(super) fn mesh(context: &Context<'_>, variables: &mut Variables) {
    let domain = Some(context.mesh.trust_domain.clone())
        .filter(|domain| !domain.is_empty())
        .unwrap_or_else(|| context.value("global.trustDomain"));
    let id = context.value("global.meshID");
    variables.some("ISTIO_META_MESH_ID", if id.is_empty() { &domain } else { &id });
    variables.some("TRUST_DOMAIN", &domain);
}

/// A probe of the proxy itself.
pub(super) fn probe(port: u16, delay: &str, period: &str, failures: &str) -> Value {
    let mut probe = json!({"httpGet": {"path": "/healthz/ready", "port": port}, "timeoutSeconds": 3});
    for (field, text) in
        [("initialDelaySeconds", delay), ("periodSeconds", period), ("failureThreshold", failures)]
    {
        // Zero is what Kubernetes takes without the field, too.
        if let Some(number) = text.trim().parse::<i64>().ok().filter(|number| *number != 0) {
            probe[field] = number.into();
        }
    }
    probe
}

/// The readiness probe as annotations and values want it.
pub(super) fn readiness(context: &Context<'_>, port: u16) -> Value {
    probe(
        port,
        &context.setting(annotation::READINESS_INITIAL_DELAY, "global.proxy.readinessInitialDelaySeconds"),
        &context.setting(annotation::READINESS_PERIOD, "global.proxy.readinessPeriodSeconds"),
        &context.setting(annotation::READINESS_FAILURES, "global.proxy.readinessFailureThreshold"),
    )
}

/// Sets what a container has only if it is given.
pub(super) fn optional(container: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        container[field] = value;
    }
}

/// When images are pulled, if somebody says so.
pub(super) fn pull_policy(context: &Context<'_>) -> Option<Value> {
    let policy = context.value("global.imagePullPolicy");
    (!policy.is_empty()).then(|| policy.into())
}
