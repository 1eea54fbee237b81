//! The charts: what Helm makes of them with many values is what the API server
//! takes, field by field.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use config::Kind;
use istio_tests::kube::{Cluster, crd};
use serde_json::{Value, json};

use super::{Case, Stage, install};

pub(super) const CASES: &[Case] = &[
    ("charts_pass_the_schema_with_all_kinds_of_values", schema),
    ("charts_say_what_is_wrong_with_a_value", wrong_values),
    ("charts_of_two_revisions_stand_side_by_side", revisions),
    ("charts_can_be_installed_in_two_halves", halves),
    ("charts_define_all_kinds", definitions),
    ("charts_let_istiod_read_what_the_kinds_say", kinds),
    ("charts_are_installed_alike_on_both_pages", install::front_page),
];

/// Values of a chart, and what must come of them.
struct Set {
    name: &'static str,
    chart: &'static str,
    values: &'static str,
    /// `Kind/name`, a pointer, and what is there as JSON.
    wanted: &'static [(&'static str, &'static str, &'static str)],
    /// `Kind/name` of what must not be there.
    absent: &'static [&'static str],
}

const NAMESPACE: &str = "istio-system";
/// Place of the first container in a Deployment.
const CONTAINER: &str = "/spec/template/spec/containers/0";

const SETS: &[Set] = &[
    Set {
        name: "default",
        chart: "istiod",
        values: "{}",
        wanted: &[
            ("Deployment/istiod", "CONTAINER/image", r#""localhost/pilot:latest""#),
            ("Deployment/istiod", "CONTAINER/securityContext/readOnlyRootFilesystem", "true"),
            ("Deployment/istiod", "CONTAINER/securityContext/runAsUser", "1337"),
            ("Deployment/istiod", "CONTAINER/securityContext/capabilities", r#"{"drop":["ALL"]}"#),
            ("Deployment/istiod", "/spec/replicas", "null"),
            ("HorizontalPodAutoscaler/istiod", "/spec/maxReplicas", "5"),
            ("PodDisruptionBudget/istiod", "/spec/minAvailable", "1"),
            ("MutatingWebhookConfiguration/istio-sidecar-injector", "/webhooks/3/name", r#""object.sidecar-injector.istio.io""#),
            ("ValidatingWebhookConfiguration/istio-validator-istio-system", "/webhooks/1/failurePolicy", r#""Fail""#),
        ],
        absent: &["NetworkPolicy/istiod"],
    },
    Set {
        name: "replicas that are spread",
        chart: "istiod",
        values: "
autoscaleEnabled: false
replicaCount: 3
pdb: {maxUnavailable: 1, unhealthyPodEvictionPolicy: AlwaysAllow}
rollingMaxSurge: 1
rollingMaxUnavailable: 0
keepaliveMaxServerConnectionAge: 10m
resources: {requests: {cpu: 500m, memory: 2Gi}, limits: {memory: 4Gi}}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: dedicated, operator: Equal, value: mesh, effect: NoSchedule}]
topologySpreadConstraints:
- {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: istiod}}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: istiod}}}
global: {priorityClassName: system-cluster-critical}
",
        wanted: &[
            ("Deployment/istiod", "/spec/replicas", "3"),
            ("Deployment/istiod", "/spec/strategy/rollingUpdate/maxUnavailable", "0"),
            ("Deployment/istiod", "/spec/template/spec/priorityClassName", r#""system-cluster-critical""#),
            ("Deployment/istiod", "/spec/template/spec/tolerations/1/value", r#""mesh""#),
            ("Deployment/istiod", "CONTAINER/resources/limits/memory", r#""4Gi""#),
            ("Deployment/istiod", "CONTAINER/args/5", r#""--keepaliveMaxServerConnectionAge=10m""#),
            ("PodDisruptionBudget/istiod", "/spec/maxUnavailable", "1"),
        ],
        absent: &["HorizontalPodAutoscaler/istiod"],
    },
    Set {
        name: "an autoscaler of two resources",
        chart: "istiod",
        values: "
autoscaleMin: 2
autoscaleMax: 9
cpu: {targetAverageUtilization: 60}
memory: {targetAverageUtilization: 70}
autoscaleBehavior: {scaleDown: {stabilizationWindowSeconds: 600}}
global: {defaultPodDisruptionBudget: {enabled: false}, networkPolicy: {enabled: true}}
",
        wanted: &[
            ("HorizontalPodAutoscaler/istiod", "/spec/metrics/1/resource/name", r#""memory""#),
            ("HorizontalPodAutoscaler/istiod", "/spec/behavior/scaleDown/stabilizationWindowSeconds", "600"),
            ("NetworkPolicy/istiod", "/spec/ingress/0/ports/2/port", "15012"),
        ],
        absent: &["PodDisruptionBudget/istiod"],
    },
    Set {
        name: "a revision with tags",
        chart: "istiod",
        values: "
revision: canary
revisionTags: [stable, default]
sidecarInjectorWebhook: {enableNamespacesByDefault: true}
sidecarInjectorWebhookAnnotations: {example.com/owner: mesh}
",
        wanted: &[
            ("Deployment/istiod-canary", "/spec/selector/matchLabels", r#"{"app":"istiod","istio.io/rev":"canary"}"#),
            ("MutatingWebhookConfiguration/istio-sidecar-injector-canary", "/webhooks/0/clientConfig/service/name", r#""istiod-canary""#),
            ("MutatingWebhookConfiguration/istio-revision-tag-stable", "/webhooks/0/namespaceSelector/matchExpressions/0/values", r#"["stable"]"#),
            ("MutatingWebhookConfiguration/istio-revision-tag-default", "/webhooks/4/name", r#""auto.sidecar-injector.istio.io""#),
            ("MutatingWebhookConfiguration/istio-revision-tag-default", "/metadata/annotations", r#"{"example.com/owner":"mesh"}"#),
            ("ValidatingWebhookConfiguration/istio-validator-canary-istio-system", "/webhooks/1/name", r#""validation.istio.io""#),
        ],
        absent: &["MutatingWebhookConfiguration/istio-sidecar-injector", "Service/istiod"],
    },
    Set {
        name: "native sidecars and the CNI plugin",
        chart: "istiod",
        values: "
cni: {enabled: true, provider: default}
env: {ENABLE_NATIVE_SIDECARS: true, PILOT_PUSH_THROTTLE: 200}
traceSampling: 12.5
global:
  logAsJson: true
  meshID: mesh-1
  network: network-1
  multiCluster: {clusterName: cluster-1}
  meshNetworks: {network-1: {endpoints: [{fromRegistry: cluster-1}], gateways: [{address: 1.2.3.4, port: 15443}]}}
  proxy: {tracer: zipkin}
  proxy_init: {forceApplyIptables: true}
meshConfig: {trustDomain: example.org, accessLogFile: /dev/stdout, defaultConfig: {holdApplicationUntilProxyStarts: true}}
",
        wanted: &[
            ("Deployment/istiod", "ENV/ENABLE_NATIVE_SIDECARS", r#""true""#),
            ("Deployment/istiod", "ENV/PILOT_PUSH_THROTTLE", r#""200""#),
            ("Deployment/istiod", "ENV/PILOT_TRACE_SAMPLING", r#""12.5""#),
            ("Deployment/istiod", "ENV/CLUSTER_ID", r#""cluster-1""#),
            ("ConfigMap/istio", "YAML/mesh/trustDomain", r#""example.org""#),
            ("ConfigMap/istio", "YAML/mesh/defaultConfig/holdApplicationUntilProxyStarts", "true"),
            ("ConfigMap/istio", "YAML/mesh/defaultConfig/tracing/zipkin/address", r#""zipkin.istio-system:9411""#),
            ("ConfigMap/istio", "YAML/mesh/defaultConfig/meshId", r#""mesh-1""#),
            ("ConfigMap/istio", "YAML/meshNetworks/networks/network-1/gateways/0/port", "15443"),
            ("ConfigMap/istio-sidecar-injector", "YAML/values/pilot/cni/enabled", "true"),
            ("ConfigMap/istio-sidecar-injector", "YAML/values/global/proxy_init/forceApplyIptables", "true"),
        ],
        absent: &[],
    },
    Set {
        name: "everything that is put into the pod",
        chart: "istiod",
        values: "
hub: registry.example/mesh
tag: 1.2.3
variant: distroless
extraContainerArgs: [--shutdownDuration=30s]
envVarFrom: [{name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: value, optional: true}}}]
volumes: [{name: extra, configMap: {name: extra, optional: true}}]
volumeMounts: [{name: extra, mountPath: /etc/extra, readOnly: true}]
initContainers: [{name: wait, image: registry.example/wait, args: [\"{{ .Release.Namespace }}\"]}]
podAnnotations: {example.com/a: b}
podLabels: {team: mesh}
deploymentLabels: {team: mesh}
deploymentAnnotations: {example.com/a: b}
serviceAnnotations: {example.com/a: b}
serviceAccountAnnotations: {example.com/a: b}
ipFamilyPolicy: PreferDualStack
jwksResolverExtraRootCA: some roots
seccompProfile: {type: Localhost, localhostProfile: mesh.json}
sidecarInjectorWebhook:
  neverInjectSelector: [{matchLabels: {job: batch}}]
  injectedAnnotations: {example.com/injected: 'true'}
  templates: {extra: 'spec: {hostAliases: [{ip: 1.2.3.4, hostnames: [a]}]}'}
  defaultTemplates: [sidecar, extra]
global: {imagePullPolicy: Always, imagePullSecrets: [pull], trustBundleName: my-roots, istiod: {enableAnalysis: true}}
",
        wanted: &[
            ("Deployment/istiod", "CONTAINER/image", r#""registry.example/mesh/pilot:1.2.3-distroless""#),
            ("Deployment/istiod", "CONTAINER/imagePullPolicy", r#""Always""#),
            ("Deployment/istiod", "CONTAINER/args/6", r#""--shutdownDuration=30s""#),
            ("Deployment/istiod", "/spec/template/spec/initContainers/0/args/0", r#""istio-system""#),
            ("Deployment/istiod", "/spec/template/metadata/labels/team", r#""mesh""#),
            ("Deployment/istiod", "ENV/PILOT_CA_CERT_CONFIGMAP", r#""my-roots""#),
            ("Deployment/istiod", "ENV/PILOT_ENABLE_ANALYSIS", r#""true""#),
            ("ServiceAccount/istiod", "/imagePullSecrets", r#"[{"name":"pull"}]"#),
            ("ConfigMap/pilot-jwks-extra-cacerts", "/data/extra.pem", r#""some roots""#),
            ("Deployment/istiod", "CONTAINER/volumeMounts/6/mountPath", r#""/cacerts""#),
            ("ConfigMap/istio-sidecar-injector", "YAML/config/defaultTemplates/1", r#""extra""#),
            ("ConfigMap/istio-sidecar-injector", "YAML/config/neverInjectSelector/0/matchLabels/job", r#""batch""#),
        ],
        absent: &[],
    },
    Set {
        name: "webhooks that are elsewhere",
        chart: "istiod",
        values: "
istiodRemote: {injectionURL: 'https://istiod.example:15017/inject/cluster/remote', injectionCABundle: Q0E=}
base: {validationURL: 'https://istiod.example:15017/validate', validationCABundle: Q0E=, validationFailurePolicy: Ignore}
global: {externalIstiod: true, omitSidecarInjectorConfigMap: true}
configMap: false
",
        wanted: &[
            ("MutatingWebhookConfiguration/istio-sidecar-injector", "/webhooks/0/clientConfig", r#"{"caBundle":"Q0E=","url":"https://istiod.example:15017/inject/cluster/remote"}"#),
            ("ValidatingWebhookConfiguration/istio-validator-istio-system", "/webhooks/0/clientConfig/url", r#""https://istiod.example:15017/validate""#),
            ("ValidatingWebhookConfiguration/istio-validator-istio-system", "/webhooks/0/failurePolicy", r#""Ignore""#),
            ("Deployment/istiod", "ENV/EXTERNAL_ISTIOD", r#""true""#),
        ],
        absent: &["ConfigMap/istio", "ConfigMap/istio-sidecar-injector"],
    },
    Set {
        name: "default",
        chart: "gateway",
        values: "{}",
        wanted: &[
            ("Deployment/gateway", "CONTAINER/image", r#""auto""#),
            ("Deployment/gateway", "/spec/template/metadata/annotations/inject.istio.io~1templates", r#""gateway""#),
            ("Deployment/gateway", "/spec/replicas", "null"),
            ("HorizontalPodAutoscaler/gateway", "/spec/minReplicas", "1"),
            ("Service/gateway", "/spec/type", r#""LoadBalancer""#),
            ("Service/gateway", "/spec/ports/1/name", r#""http2""#),
        ],
        absent: &["PodDisruptionBudget/gateway", "NetworkPolicy/gateway"],
    },
    Set {
        name: "an autoscaler with behavior",
        chart: "gateway",
        values: "
name: istio-edge
revision: canary
autoscaling: {minReplicas: 2, maxReplicas: 20, targetCPUUtilizationPercentage: 50, targetMemoryUtilizationPercentage: 60, autoscaleBehavior: {scaleUp: {stabilizationWindowSeconds: 10}}}
podDisruptionBudget: {minAvailable: 1, unhealthyPodEvictionPolicy: AlwaysAllow}
strategy: {rollingUpdate: {maxSurge: 100%, maxUnavailable: 25%}}
minReadySeconds: 5
env: {ISTIO_META_ROUTER_MODE: sni-dnat}
envVarFrom: [{name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
labels: {app: edge, istio: edge, team: net}
annotations: {example.com/a: b}
global: {networkPolicy: {enabled: true}}
service:
  annotations: {service.beta.kubernetes.io/aws-load-balancer-type: nlb}
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  loadBalancerClass: example.com/internal
  loadBalancerSourceRanges: [10.0.0.0/8]
  allocateLoadBalancerNodePorts: false
  ports: [{name: https, port: 443, targetPort: 8443, protocol: TCP}]
",
        wanted: &[
            ("HorizontalPodAutoscaler/istio-edge", "/spec/metrics/1/resource/target/averageUtilization", "60"),
            ("Deployment/istio-edge", "/spec/selector/matchLabels", r#"{"app":"edge","istio":"edge"}"#),
            ("Deployment/istio-edge", "/spec/template/metadata/labels/istio.io~1rev", r#""canary""#),
            ("Deployment/istio-edge", "/spec/template/metadata/labels/team", r#""net""#),
            ("Deployment/istio-edge", "ENV/ISTIO_META_ROUTER_MODE", r#""sni-dnat""#),
            ("Service/istio-edge", "/spec/allocateLoadBalancerNodePorts", "false"),
            ("Service/istio-edge", "/spec/externalTrafficPolicy", r#""Local""#),
            ("PodDisruptionBudget/istio-edge", "/spec/minAvailable", "1"),
            ("NetworkPolicy/istio-edge", "/spec/podSelector/matchLabels/app", r#""edge""#),
        ],
        absent: &[],
    },
    Set {
        name: "on every node",
        chart: "gateway",
        values: "
kind: DaemonSet
strategy: {rollingUpdate: {maxUnavailable: 1}}
autoscaling: {enabled: true}
service: {type: None}
rbac: {enabled: false}
serviceAccount: {create: false, name: ''}
networkGateway: network-1
tolerations: [{operator: Exists}]
lifecycle: {preStop: {exec: {command: [sleep, '5']}}}
securityContext: {runAsNonRoot: true}
containerSecurityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}
additionalContainers: [{name: log, image: registry.example/log}]
volumes: [{name: extra, emptyDir: {}}]
volumeMounts: [{name: extra, mountPath: /extra}]
imagePullSecrets: [{name: pull}]
",
        wanted: &[
            ("DaemonSet/gateway", "/spec/updateStrategy/rollingUpdate/maxUnavailable", "1"),
            ("DaemonSet/gateway", "/spec/template/spec/serviceAccountName", r#""default""#),
            ("DaemonSet/gateway", "ENV/ISTIO_META_REQUESTED_NETWORK_VIEW", r#""network-1""#),
            ("DaemonSet/gateway", "/spec/template/spec/containers/1/name", r#""log""#),
        ],
        absent: &["Service/gateway", "HorizontalPodAutoscaler/gateway", "Role/gateway", "ServiceAccount/gateway"],
    },
    Set {
        name: "between networks",
        chart: "gateway",
        values: "{networkGateway: network-1, replicaCount: 2, autoscaling: {enabled: false}}",
        wanted: &[
            ("Deployment/gateway", "/spec/replicas", "2"),
            ("Service/gateway", "/spec/ports/1/port", "15443"),
            ("Service/gateway", "/metadata/labels/topology.istio.io~1network", r#""network-1""#),
        ],
        absent: &[],
    },
];

fn title(object: &Value) -> String {
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Objects by kind and name; no two may be of the same.
fn named(objects: Vec<Value>) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for object in objects {
        let title = title(&object);
        ensure!(all.insert(title.clone(), object).is_none(), "{title} is there twice");
    }
    Ok(all)
}

fn render(cluster: &Cluster, chart: &str, values: &Value) -> anyhow::Result<BTreeMap<String, Value>> {
    named(cluster.render(chart, chart, NAMESPACE, values)?)
}

fn schema(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = &stage.cluster;
    for set in SETS {
        let values = serde_saphyr::from_str(set.values)?;
        one(cluster, set, &values).with_context(|| format!("{} with values: {}", set.chart, set.name))?;
    }
    Ok(())
}

fn one(cluster: &Cluster, set: &Set, values: &Value) -> anyhow::Result<()> {
    let objects = render(cluster, set.chart, values)?;
    for &(name, path, value) in set.wanted {
        let object = objects.get(name).with_context(|| format!("no {name} among {:?}", objects.keys()))?;
        let (found, wanted) = (find(object, path)?, serde_json::from_str::<Value>(value)?);
        ensure!(found == wanted, "{name} {path}: {found} and not {wanted}");
    }
    for name in set.absent {
        ensure!(!objects.contains_key(*name), "{name} is there");
    }
    let all: Vec<Value> = objects.into_values().collect();
    for object in &all {
        let labels = &object["metadata"]["labels"];
        ensure!(labels["app.kubernetes.io/managed-by"] == "Helm", "{}: labels {labels}", title(object));
    }
    let applied = cluster.apply_strictly(&all);
    for object in all.iter().rev() {
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let metadata = &object["metadata"];
        cluster.delete(version, kind, text(&metadata["namespace"]), text(&metadata["name"]))?;
    }
    applied
}

/// What is at a place: `ENV/NAME` is a variable, `YAML/key/..` is inside of a text.
fn find(object: &Value, path: &str) -> anyhow::Result<Value> {
    if let Some(name) = path.strip_prefix("ENV/") {
        let all = object.pointer(&format!("{CONTAINER}/env")).and_then(Value::as_array);
        let one = all.and_then(|all| all.iter().find(|one| one["name"] == name));
        return Ok(one.map_or(Value::Null, |one| one["value"].clone()));
    }
    if let Some(path) = path.strip_prefix("YAML/") {
        let (key, path) = path.split_once('/').context("a key and a place")?;
        let inside: Value = serde_saphyr::from_str(text(&object["data"][key]))?;
        return Ok(inside.pointer(&format!("/{path}")).cloned().unwrap_or_default());
    }
    let path = path.replace("CONTAINER", CONTAINER);
    Ok(object.pointer(&path).cloned().unwrap_or_default())
}

fn wrong_values(stage: &mut Stage) -> anyhow::Result<()> {
    for (chart, values, wanted) in [
        ("istiod", json!({"global": {"proxy": {"tracer": "jaeger"}}}), "global.proxy.tracer is \"jaeger\""),
        ("gateway", json!({"service": {"ports": []}}), "service.ports must name at least one port"),
    ] {
        match render(&stage.cluster, chart, &values) {
            Ok(_) => bail!("{chart} takes {values}"),
            Err(error) => {
                let error = format!("{error:#}");
                ensure!(error.contains(wanted), "{chart} with {values}: {error}");
            }
        }
    }
    Ok(())
}

fn revisions(stage: &mut Stage) -> anyhow::Result<()> {
    let first = render(&stage.cluster, "istiod", &json!({}))?;
    let second =
        render(&stage.cluster, "istiod", &json!({"revision": "canary", "revisionTags": ["stable"]}))?;
    let both: Vec<&String> = first.keys().filter(|name| second.contains_key(*name)).collect();
    ensure!(both.is_empty(), "of both revisions: {both:?}");
    ensure!(first.len() <= second.len(), "{:?} and {:?}", first.keys(), second.keys());
    Ok(())
}

fn halves(stage: &mut Stage) -> anyhow::Result<()> {
    let scope = |scope: &str| {
        render(&stage.cluster, "istiod", &json!({"global": {"resourceScope": scope}, "revisionTags": ["a"]}))
    };
    let (all, cluster, namespace) = (scope("all")?, scope("cluster")?, scope("namespace")?);
    let halves: BTreeSet<&String> = cluster.keys().chain(namespace.keys()).collect();
    ensure!(halves == all.keys().collect(), "{halves:?} and {:?}", all.keys());
    ensure!(halves.len() == cluster.len() + namespace.len(), "{halves:?}");
    for (half, is_namespaced) in [(&cluster, false), (&namespace, true)] {
        let wrong: Vec<_> = half
            .values()
            .filter(|one| one["metadata"]["namespace"].is_string() != is_namespaced)
            .map(title)
            .collect();
        ensure!(wrong.is_empty(), "in the wrong half: {wrong:?}");
    }
    Ok(())
}

fn definitions(stage: &mut Stage) -> anyhow::Result<()> {
    let of_chart = render(&stage.cluster, "crds", &json!({}))?;
    let of_tree = named(crd::definitions()?)?;
    ensure!(of_chart.keys().eq(of_tree.keys()), "{:?} and {:?}", of_chart.keys(), of_tree.keys());
    let all: Vec<Value> = of_chart.into_values().collect();
    let few =
        render(&stage.cluster, "crds", &json!({"base": {"excludedCRDs": ["sidecars.networking.istio.io"]}}))?;
    ensure!(few.len() == all.len() - 1, "{:?}", few.keys());
    ensure!(!few.contains_key("CustomResourceDefinition/sidecars.networking.istio.io"), "{:?}", few.keys());
    stage.cluster.apply_strictly(&all)?;
    stage.cluster.wait_defined()
}

/// The rules of roles, one for each resource and verb: `verb group/resource`.
pub(super) fn rules(roles: &[&Value]) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array()).flatten() {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                all.extend(list(&rule["verbs"]).iter().map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    all
}

fn kinds(stage: &mut Stage) -> anyhow::Result<()> {
    let objects = render(&stage.cluster, "istiod", &json!({}))?;
    let role = &objects["ClusterRole/istiod-clusterrole-istio-system"];
    let is_istio = |group: &str| group.ends_with(".istio.io");
    let reads = |rule: &String| {
        let (verb, resource) = rule.split_once(' ')?;
        let (group, name) = resource.split_once('/')?;
        (matches!(verb, "list" | "watch") && is_istio(group) && !name.contains('/')).then(|| rule.clone())
    };
    let granted: BTreeSet<String> = rules(&[role]).iter().filter_map(reads).collect();
    let of_table = Kind::ALL.iter().filter(|kind| is_istio(kind.group()));
    let needed: BTreeSet<String> = of_table
        .flat_map(|kind| ["list", "watch"].map(|verb| format!("{verb} {}/{}", kind.group(), kind.plural())))
        .collect();
    ensure!(
        granted == needed,
        "not granted: {:?}; not needed: {:?}",
        needed.difference(&granted).collect::<Vec<_>>(),
        granted.difference(&needed).collect::<Vec<_>>()
    );
    Ok(())
}
