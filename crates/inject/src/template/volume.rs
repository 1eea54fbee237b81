//! Volumes of the proxy and where it mounts them.

use std::collections::BTreeMap;

use names::annotation;
use serde_json::{Map, Value, json};

use super::{Context, Error};
use crate::pod;

/// Which proxies have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Sidecar,
    Gateway,
    Grpc,
}

fn is_gke(context: &Context<'_>) -> bool {
    context.value("global.caName") == "GkeWorkloadCertificate"
}

fn has_istiod_roots(context: &Context<'_>) -> bool {
    context.value("global.pilotCertProvider") == "istiod"
}

fn lightstep(context: &Context<'_>) -> Option<String> {
    let tls = context.proxy.tracing.as_ref()?.tls_settings.as_ref()?;
    if context.value("global.proxy.tracer") != "lightstep" {
        return None;
    }
    let file = &tls.ca_certificates;
    Some(file.rfind('/').map_or_else(String::new, |end| file[..=end].to_owned()))
}

/// Where certificates of the workload lie.
pub(super) fn workload_certificates(context: &Context<'_>) -> Value {
    let path = "/var/run/secrets/workload-spiffe-credentials";
    if is_gke(context) {
        json!({"name": "gke-workload-certificate", "mountPath": path, "readOnly": true})
    } else {
        json!({"name": "workload-certs", "mountPath": path})
    }
}

/// What the proxy mounts.
pub(super) fn mounts(context: &Context<'_>, role: Role) -> Result<Vec<Value>, Error> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut mounts = vec![mount("workload-socket", "/var/run/secrets/workload-spiffe-uds")];
    if role != Role::Grpc {
        mounts.push(mount("credential-socket", "/var/run/secrets/credential-uds"));
    }
    mounts.push(workload_certificates(context));
    if has_istiod_roots(context) {
        mounts.push(mount("istiod-ca-cert", "/var/run/secrets/istio"));
        if role == Role::Sidecar {
            mounts.push(mount("istio-ca-crl", "/var/run/secrets/istio/crl"));
        }
    }
    mounts.push(mount("istio-data", "/var/lib/istio/data"));
    if role != Role::Grpc && context.annotation(annotation::BOOTSTRAP_OVERRIDE).is_some() {
        mounts.push(mount("custom-bootstrap-volume", "/etc/istio/custom-bootstrap"));
    }
    mounts.push(mount(if role == Role::Grpc { "istio-xds" } else { "istio-envoy" }, "/etc/istio/proxy"));
    mounts.push(mount("istio-token", "/var/run/secrets/tokens"));
    if context.is_on("global.mountMtlsCerts") {
        mounts.push(json!({"name": "istio-certs", "mountPath": "/etc/certs/", "readOnly": true}));
    }
    mounts.push(mount("istio-podinfo", "/etc/istio/pod"));
    if role == Role::Sidecar
        && let Some(directory) = lightstep(context)
    {
        mounts.push(json!({"name": "lightstep-certs", "mountPath": directory, "readOnly": true}));
    }
    if role != Role::Gateway {
        let example = "{\"my-volume\":{\"mountPath\":\"/etc/my\"}}";
        mounts.extend(named(context, annotation::USER_VOLUME_MOUNT, example)?);
    }
    Ok(mounts)
}

/// Objects by name in an annotation, as a list.
fn named(context: &Context<'_>, key: &'static str, example: &'static str) -> Result<Vec<Value>, Error> {
    let Some(text) = context.annotation(key) else { return Ok(Vec::new()) };
    let wrong = |why: String| Error::Json { key, example, why };
    let all: BTreeMap<String, Map<String, Value>> =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    Ok(all
        .into_iter()
        .map(|(name, mut fields)| {
            fields.insert("name".into(), name.into());
            Value::Object(fields)
        })
        .collect())
}

/// The volumes of the pod.
pub(super) fn volumes(context: &Context<'_>, role: Role) -> Result<Vec<Value>, Error> {
    // Without a source they are empty directories, unless the pod or an overlay
    // names another source.
    let open = |name: &str| json!({"name": name});
    let mut volumes = vec![open("workload-socket")];
    if role != Role::Grpc {
        volumes.push(open("credential-socket"));
    }
    volumes.push(if is_gke(context) {
        json!({"name": "gke-workload-certificate",
            "csi": {"driver": "workloadcertificates.security.cloud.google.com"}})
    } else {
        open("workload-certs")
    });
    if let Some(name) = context.annotation(annotation::BOOTSTRAP_OVERRIDE) {
        volumes.push(json!({"name": "custom-bootstrap-volume", "configMap": {"name": name}}));
    }
    let shared = if role == Role::Grpc { "istio-xds" } else { "istio-envoy" };
    volumes.push(json!({"name": shared, "emptyDir": {"medium": "Memory"}}));
    volumes.push(json!({"name": "istio-data", "emptyDir": {}}));
    let item = |path: &str| json!({"path": path, "fieldRef": {"fieldPath": format!("metadata.{path}")}});
    volumes.push(
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [item("labels"), item("annotations")]}}),
    );
    let token = json!({"path": "istio-token", "expirationSeconds": 43200,
        "audience": context.value("global.sds.token.aud")});
    volumes.push(json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}}));
    if has_istiod_roots(context) {
        volumes.push(roots(context));
    }
    if role == Role::Sidecar {
        let name = context.value("pilot.crlConfigMapName");
        let name = if name.is_empty() { "istio-ca-crl" } else { &name };
        volumes.push(json!({"name": "istio-ca-crl", "configMap": {"name": name, "optional": true}}));
    }
    if context.is_on("global.mountMtlsCerts") {
        let account = pod::text(context.pod, "/spec/serviceAccountName");
        let account = if account.is_empty() { "default" } else { account };
        let secret = json!({"optional": true, "secretName": format!("istio.{account}")});
        volumes.push(json!({"name": "istio-certs", "secret": secret}));
    }
    if role != Role::Gateway {
        let example = "{\"my-volume\":{\"secret\":{\"secretName\":\"my-secret\"}}}";
        volumes.extend(named(context, annotation::USER_VOLUME, example)?);
    }
    if role == Role::Sidecar && lightstep(context).is_some() {
        let secret = json!({"optional": true, "secretName": "lightstep.cacert"});
        volumes.push(json!({"name": "lightstep-certs", "secret": secret}));
    }
    Ok(volumes)
}

/// Where the roots of the mesh come from.
fn roots(context: &Context<'_>) -> Value {
    let name = context.value("global.trustBundleName");
    let name = |default: &str| if name.is_empty() { default.to_owned() } else { name.clone() };
    if context.is_on("pilot.env.ENABLE_CLUSTER_TRUST_BUNDLE_API") {
        let bundle =
            json!({"name": format!("istio.io:istiod-ca:{}", name("root-cert")), "path": "root-cert.pem"});
        json!({"name": "istiod-ca-cert", "projected": {"sources": [{"clusterTrustBundle": bundle}]}})
    } else {
        json!({"name": "istiod-ca-cert", "configMap": {"name": name("istio-ca-root-cert")}})
    }
}

/// Secrets by which images are pulled.
pub(super) fn pull_secrets(context: &Context<'_>) -> Vec<Value> {
    let names = context.settings.values.given("global.imagePullSecrets").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(|name| json!({"name": name})).collect()
}
