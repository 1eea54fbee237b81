//! Pods of Kubernetes, through its API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use runtime::tasks::Tasks;
use serde::Deserialize;

use super::forwarded::Forwarded;
use super::{Connection, Credentials, Proxy, Target, nearest};
use crate::args::Global;
use crate::kubernetes::{HINT, Kubernetes};

/// Who istiod knows: the service account `default` of its own namespace.
const ACCOUNT: &str = "default";
/// For whom the token is.
const AUDIENCE: &str = "istio-ca";
/// How long it is good for, in seconds.
const LIFETIME: i64 = 3600;
/// Labels of control planes.
const ISTIOD: &str = "app=istiod";
/// ConfigMap with the roots of the mesh, in every namespace.
const ROOTS: &str = "istio-ca-root-cert";
/// ConfigMap with the settings of injection.
const INJECTOR: &str = "istio-sidecar-injector";

/// A cluster.
pub(super) struct Cluster {
    pub(super) kubernetes: Kubernetes,
    istio_namespace: String,
    /// Longest wait for a connection and an answer.
    limit: Duration,
    /// Ports that are forwarded.
    tasks: Tasks,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("kubernetes", &self.kubernetes).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig; nothing is asked yet.
    pub(super) async fn of(global: &Global) -> anyhow::Result<Self> {
        Ok(Self {
            kubernetes: Kubernetes::open(global).await?,
            istio_namespace: global.istio_namespace.clone(),
            limit: global.kubeclient_timeout,
            tasks: Tasks::new(),
        })
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.kubernetes.client.clone(), namespace)
    }

    pub(super) async fn find(&self, target: &Target) -> anyhow::Result<Vec<Proxy>> {
        let namespace = target.namespace.as_deref().unwrap_or(&self.kubernetes.namespace);
        let name = &target.name;
        let Some(kind) = &target.kind else {
            return Ok(vec![Proxy { name: name.clone(), namespace: namespace.to_owned() }]);
        };
        let selector = self.selector(kind, namespace, name).await?;
        self.list(namespace, &selector).await
    }

    /// The labels of the pods of an object.
    async fn selector(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<String> {
        let client = self.kubernetes.client.clone();
        let asked = async {
            anyhow::Ok(match kind.split('.').next().unwrap_or_default() {
                "svc" | "service" | "services" => {
                    let service = Api::<Service>::namespaced(client, namespace).get(name).await?;
                    let labels = service.spec.and_then(|spec| spec.selector);
                    labels.map(|labels| equal(&labels)).unwrap_or_default()
                }
                "deploy" | "deployment" | "deployments" => {
                    let found = Api::<Deployment>::namespaced(client, namespace).get(name).await?;
                    found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()
                }
                "sts" | "statefulset" | "statefulsets" => {
                    let found = Api::<StatefulSet>::namespaced(client, namespace).get(name).await?;
                    found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()
                }
                "ds" | "daemonset" | "daemonsets" => {
                    let found = Api::<DaemonSet>::namespaced(client, namespace).get(name).await?;
                    found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()
                }
                "rs" | "replicaset" | "replicasets" => {
                    let found = Api::<ReplicaSet>::namespaced(client, namespace).get(name).await?;
                    found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()
                }
                "job" | "jobs" => {
                    let found = Api::<Job>::namespaced(client, namespace).get(name).await?;
                    let selector = found.spec.and_then(|spec| spec.selector);
                    selector.map(|selector| labels(&selector)).unwrap_or_default()
                }
                other => bail!(
                    "{other:?} does not refer to a pod; there are pod, deployment, statefulset, daemonset, replicaset, job and svc"
                ),
            })
        };
        let selector =
            asked.await.with_context(|| format!("{kind}/{name} in the namespace {namespace:?}"))?;
        if selector.is_empty() {
            bail!("{kind}/{name}.{namespace} selects no pods");
        }
        Ok(selector)
    }

    /// Pods that have labels, those that are ready first.
    async fn list(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Proxy>> {
        let params = ListParams::default().labels(selector);
        let list = self
            .pods(namespace)
            .list(&params)
            .await
            .with_context(|| format!("pods in the namespace {namespace:?}; {HINT}"))?;
        let mut found: Vec<(bool, Proxy)> = list
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| {
                let proxy = Proxy { name: pod.name_any(), namespace: pod.namespace().unwrap_or_default() };
                (!is_ready(pod), proxy)
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, proxy)| proxy).collect())
    }

    pub(super) async fn selected(&self, labels: &str) -> anyhow::Result<Vec<Proxy>> {
        self.list(&self.kubernetes.namespace, labels).await
    }

    /// Running pods that have an address, each with whether it has a sidecar.
    pub(super) async fn with_address(&self, ip: IpAddr) -> anyhow::Result<Vec<(Proxy, Option<bool>)>> {
        let params = ListParams::default().fields(&format!("status.podIP={ip},status.phase=Running"));
        let list = Api::<Pod>::all(self.kubernetes.client.clone()).list(&params).await;
        let list = list.with_context(|| format!("the pod with address {ip}; {HINT}"))?;
        let found = list.items.iter().map(|pod| {
            let proxy = Proxy { name: pod.name_any(), namespace: pod.namespace().unwrap_or_default() };
            let spec = pod.spec.as_ref();
            let containers = spec.into_iter().flat_map(|spec| &spec.containers);
            let starting = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let has_sidecar = containers.chain(starting).any(|container| container.name == "istio-proxy");
            (proxy, Some(has_sidecar))
        });
        Ok(found.collect())
    }

    pub(super) async fn istiods(&self, labels: &str) -> anyhow::Result<Vec<Proxy>> {
        let params = ListParams::default()
            .labels(if labels.is_empty() { ISTIOD } else { labels })
            .fields("status.phase=Running");
        let list =
            self.pods(&self.istio_namespace).list(&params).await.with_context(|| {
                format!("control planes in the namespace {:?}; {HINT}", self.istio_namespace)
            })?;
        let found = list.items.iter();
        Ok(found.map(|pod| Proxy { name: pod.name_any(), namespace: self.istio_namespace.clone() }).collect())
    }

    async fn forward(&self, pod: &Proxy, port: u16) -> Result<Connection, kube::Error> {
        let mut forwarder = self.pods(&pod.namespace).portforward(&pod.name, &[port]).await?;
        let parts = forwarder.take_stream(port).zip(forwarder.take_error(port));
        // It works as long as somebody waits for it.
        self.tasks.spawn("port-forward", async move { drop(forwarder.join().await) });
        match parts {
            Some((stream, why)) => Ok(Box::new(Forwarded {
                stream,
                why: Box::pin(why.fuse()),
                place: format!("port {port} of {pod}"),
            })),
            None => Err(kube::Error::Service("the port was not forwarded".into())),
        }
    }

    pub(super) async fn connect(&self, pod: &Proxy, port: u16) -> anyhow::Result<Connection> {
        let connected = tokio::time::timeout(self.limit, self.forward(pod, port)).await;
        let error = match connected {
            Err(_) => bail!("port {port} of {pod} through the API server: no answer in time"),
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
        };
        // Why is told better by the pod than by who was to forward to it.
        match self.pods(&pod.namespace).get_opt(&pod.name).await {
            Ok(None) => {
                let all = Api::<Pod>::all(self.kubernetes.client.clone()).list(&ListParams::default()).await;
                let all: Vec<Proxy> = all
                    .map(|list| list.items)
                    .unwrap_or_default()
                    .iter()
                    .map(|pod| Proxy { name: pod.name_any(), namespace: pod.namespace().unwrap_or_default() })
                    .collect();
                let guess = nearest(&pod.name, all.iter());
                bail!("there is no pod {:?} in the namespace {:?}{guess}", pod.name, pod.namespace)
            }
            Ok(Some(found)) => {
                let phase = found.status.and_then(|status| status.phase).unwrap_or_else(|| "unknown".into());
                Err(error).with_context(|| {
                    format!("port {port} of {pod}, which is {phase}, through the API server")
                })
            }
            Err(_) => {
                Err(error).with_context(|| format!("port {port} of {pod} through the API server; {HINT}"))
            }
        }
    }

    pub(super) async fn credentials(&self) -> anyhow::Result<Credentials> {
        let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(
            self.kubernetes.client.clone(),
            &self.istio_namespace,
        );
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![AUDIENCE.into()],
                expiration_seconds: Some(LIFETIME),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| {
            format!("token of the service account {ACCOUNT} in the namespace {:?}", self.istio_namespace)
        })?;
        Ok(Credentials {
            token: answer.status.map(|status| status.token),
            // Who may have a token may not read them; then nothing is verified.
            roots: self.data(ROOTS, "root-cert.pem").await.ok().flatten(),
        })
    }

    /// A value of a ConfigMap of the control plane, if it is there.
    pub(super) async fn data(&self, name: &str, key: &str) -> anyhow::Result<Option<String>> {
        let maps = Api::<ConfigMap>::namespaced(self.kubernetes.client.clone(), &self.istio_namespace);
        let found = maps.get_opt(name).await;
        let found = found.with_context(|| format!("ConfigMap {name}.{}; {HINT}", self.istio_namespace))?;
        Ok(found.and_then(|map| map.data?.remove(key)))
    }

    pub(super) async fn log_level(&self) -> Option<String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Values {
            global: Global,
            sidecar_injector_webhook: Webhook,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Webhook {
            global: Global,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Global {
            proxy: Settings,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Settings {
            log_level: String,
        }
        let values = self.data(INJECTOR, "values").await.ok().flatten()?;
        let values: Values = serde_saphyr::from_str(&values).ok()?;
        let levels = [values.global.proxy.log_level, values.sidecar_injector_webhook.global.proxy.log_level];
        // What is set may be several levels, of which the first is for all loggers.
        levels
            .into_iter()
            .map(|level| level.split(',').next().unwrap_or_default().to_owned())
            .find(|level| !level.is_empty() && !level.contains(':'))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

fn equal(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// The text that the API server reads.
fn labels(selector: &LabelSelector) -> String {
    let mut said: Vec<String> =
        selector.match_labels.as_ref().map(equal).into_iter().filter(|text| !text.is_empty()).collect();
    for rule in selector.match_expressions.iter().flatten() {
        let values = rule.values.as_ref().map(|values| values.join(",")).unwrap_or_default();
        let key = &rule.key;
        said.push(match rule.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        });
    }
    said.join(",")
}
