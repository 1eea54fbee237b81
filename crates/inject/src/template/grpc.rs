//! Templates for applications that speak xDS themselves: `grpc-agent` puts an
//! agent beside them, `grpc-simple` only the bootstrap file.

use names::annotation;
use serde_json::{Value, json};

use super::common::{self, Variables, resources};
use super::container::{self, optional, pull_policy};
use super::volume::{self, Role};
use super::{Context, Error};
use crate::pod;

/// Writes the bootstrap of gRPC's xDS client from the pod's own data.
const WRITE_BOOTSTRAP: &str = r#"cat > /var/lib/grpc/data/bootstrap.json <<END
{
  "xds_servers": [
    {
      "server_uri": "dns:///istiod.${ISTIO_NAMESPACE}.svc:15010",
      "channel_creds": [{"type": "insecure"}],
      "server_features": ["xds_v3"]
    }
  ],
  "node": {
    "id": "sidecar~${INSTANCE_IP}~${POD_NAME}.${POD_NAMESPACE}~cluster.local",
    "metadata": {"GENERATOR": "grpc"}
  }
}
END
"#;

pub(super) fn agent(context: &Context<'_>) -> Result<Value, Error> {
    let port = names::port::AGENT_STATUS;
    let wait = format!("--url=http://localhost:{port}/healthz/ready");
    let mut proxy = json!({
        "name": pod::PROXY,
        "image": context.proxy_image(),
        "ports": [{"containerPort": port, "protocol": "TCP", "name": "mesh-metrics"}],
        "args": container::args(context, "sidecar"),
        "lifecycle": {"postStart": {"exec": {"command": ["pilot-agent", "wait", wait]}}},
        "env": variables(context),
        "volumeMounts": volume::mounts(context, Role::Grpc)?,
    });
    optional(&mut proxy, "imagePullPolicy", pull_policy(context));
    optional(&mut proxy, "resources", resources(context));
    if context.status_port() != "0" {
        proxy["readinessProbe"] = container::readiness(context, port);
    }
    let mut containers = vec![proxy];
    containers.extend(common::applications(context).into_iter().map(|name| {
        json!({
            "name": name,
            "env": [
                {"name": "GRPC_XDS_EXPERIMENTAL_SECURITY_SUPPORT", "value": "true"},
                {"name": "GRPC_XDS_BOOTSTRAP", "value": "/etc/istio/proxy/grpc-bootstrap.json"},
            ],
            "volumeMounts": [
                {"mountPath": "/var/lib/istio/data", "name": "istio-data"},
                {"mountPath": "/etc/istio/proxy", "name": "istio-xds"},
                volume::workload_certificates(context),
            ],
        })
    }));
    let mut spec = json!({"containers": containers, "volumes": volume::volumes(context, Role::Grpc)?});
    let secrets = volume::pull_secrets(context);
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.into();
    }
    let mut annotations = common::annotations(context);
    annotations.insert(annotation::REWRITE_PROBES.into(), "false".into());
    // The label of mutual TLS is the user's to set: only he knows what the application does.
    let metadata = json!({"labels": common::canonical(context), "annotations": annotations});
    Ok(json!({"metadata": metadata, "spec": spec}))
}

fn variables(context: &Context<'_>) -> Value {
    let mut all = Variables::default();
    all.value("ISTIO_META_GENERATOR", "grpc").value("OUTPUT_CERTS", "/var/lib/istio/data");
    container::localhost(context, &mut all);
    container::identity(context, &mut all);
    container::settings(context, &mut all);
    container::app_containers(context, &mut all);
    container::place(context, &mut all);
    all.some("ISTIO_META_NETWORK", &context.value("global.network"));
    container::workload(context, &mut all, &context.owner.name);
    container::mesh(context, &mut all);
    all.metadata(context);
    // gRPC finds its servers by xDS, and needs no names.
    all.value("ISTIO_META_DNS_CAPTURE", "false").value("DISABLE_ENVOY", "true");
    all.build()
}

pub(super) fn simple(context: &Context<'_>) -> Value {
    const VOLUME: &str = "grpc-io-proxyless-bootstrap";
    let mount = json!([{"mountPath": "/var/lib/grpc/data/", "name": VOLUME}]);
    let mut own = Variables::default();
    own.field("INSTANCE_IP", "status.podIP")
        .field("POD_NAME", "metadata.name")
        .field("POD_NAMESPACE", "metadata.namespace")
        .value("ISTIO_NAMESPACE", &context.value("global.istioNamespace"));
    let names = pod::list(context.pod, pod::CONTAINERS).iter().map(pod::name);
    let containers: Vec<Value> = names
        .map(|name| {
            json!({
                "name": name,
                "env": [
                    {"name": "GRPC_XDS_BOOTSTRAP", "value": "/var/lib/grpc/data/bootstrap.json"},
                    {"name": "GRPC_GO_LOG_VERBOSITY_LEVEL", "value": "99"},
                    {"name": "GRPC_GO_LOG_SEVERITY_LEVEL", "value": "info"},
                ],
                "volumeMounts": mount,
            })
        })
        .collect();
    json!({
        "metadata": {"annotations": {annotation::REWRITE_PROBES: "false"}},
        "spec": {
            "initContainers": [{
                "name": "grpc-bootstrap-init",
                "image": "busybox:1.28",
                "volumeMounts": mount,
                "env": own.build(),
                "command": ["sh", "-c", WRITE_BOOTSTRAP],
            }],
            "containers": containers,
            "volumes": [{"name": VOLUME, "emptyDir": {}}],
        },
    })
}
