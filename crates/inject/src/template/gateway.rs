//! The template `gateway`: a pod whose only container is a proxy becomes a
//! gateway of the mesh.

use names::annotation;
use serde_json::{Value, json};

use super::Context;
use super::common::{self, Variables};
use super::container::{self, READY_PORT, optional, pull_policy};
use super::volume::{self, Role};
use crate::pod;

pub(super) fn build(context: &Context<'_>) -> Value {
    let security = context.settings.values.given("gateways.securityContext").cloned();
    // Ports below 1024 without a capability.
    let security = security.unwrap_or_else(
        || json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}),
    );
    let mut proxy = json!({
        "name": pod::PROXY,
        "image": context.proxy_image(),
        "ports": [{"containerPort": names::port::ENVOY_PROMETHEUS, "protocol": "TCP", "name": "http-envoy-prom"}],
        "args": container::args(context, "router"),
        "securityContext": {"runAsUser": context.uid, "runAsGroup": context.gid},
        "env": variables(context),
        "readinessProbe": container::probe(
            READY_PORT,
            &context.value("global.proxy.readinessInitialDelaySeconds"),
            &context.value("global.proxy.readinessPeriodSeconds"),
            &context.value("global.proxy.readinessFailureThreshold"),
        ),
        // Only annotations of sidecars can be wrong.
        "volumeMounts": volume::mounts(context, Role::Gateway).unwrap_or_default(),
    });
    optional(&mut proxy, "lifecycle", context.settings.values.given("global.proxy.lifecycle").cloned());
    optional(&mut proxy, "imagePullPolicy", pull_policy(context));
    let mut spec = json!({
        "securityContext": security,
        "containers": [proxy],
        "volumes": volume::volumes(context, Role::Gateway).unwrap_or_default(),
    });
    let secrets = volume::pull_secrets(context);
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.into();
    }
    let metadata = json!({"labels": common::canonical(context), "annotations": common::annotations(context)});
    json!({"metadata": metadata, "spec": spec})
}

fn variables(context: &Context<'_>) -> Value {
    let mut all = Variables::default();
    container::identity(context, &mut all);
    all.limit("ISTIO_CPU_LIMIT", "limits.cpu");
    container::settings(context, &mut all);
    all.limit("GOMEMLIMIT", "limits.memory");
    container::compliance(context, &mut all);
    container::app_containers(context, &mut all);
    container::place(context, &mut all);
    all.value("ISTIO_META_INTERCEPTION_MODE", context.mesh_mode());
    all.some("ISTIO_META_NETWORK", &context.value("global.network"));
    container::workload(context, &mut all, &context.owner.name);
    if context.annotation(annotation::BOOTSTRAP_OVERRIDE).is_some() {
        all.value("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json");
    }
    container::mesh(context, &mut all);
    all.metadata(context);
    all.build()
}
