//! Objects of a cluster, and logs of its pods.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::redact;
use super::selection::Subject;
use super::settings::Settings;
use crate::kubernetes::Kubernetes;
use crate::proxies::Proxy;
use crate::render::yaml;

/// Objects in one answer.
const PAGE: u32 = 500;
/// Objects that are in no namespace.
const WIDE: [(&str, &str); 5] = [
    ("api/v1", "nodes"),
    ("api/v1", "namespaces"),
    ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ("apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    ("apis/admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
];
/// Objects that are in one.
const NARROW: [(&str, &str); 14] = [
    ("api/v1", "pods"),
    ("api/v1", "services"),
    ("api/v1", "replicationcontrollers"),
    ("api/v1", "configmaps"),
    ("apis/apps/v1", "deployments"),
    ("apis/apps/v1", "daemonsets"),
    ("apis/apps/v1", "replicasets"),
    ("apis/apps/v1", "statefulsets"),
    ("apis/batch/v1", "jobs"),
    ("apis/batch/v1", "cronjobs"),
    ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    ("apis/networking.k8s.io/v1", "ingresses"),
    ("apis/networking.k8s.io/v1", "networkpolicies"),
    ("apis/discovery.k8s.io/v1", "endpointslices"),
];
/// Groups of the mesh's own objects: the first by its end.
const MESH: [&str; 2] = ["istio.io", "gateway.networking.k8s.io"];
/// Container of sidecars and gateways.
pub(super) const PROXY: &str = "istio-proxy";
/// Container of istiod.
const DISCOVERY: &str = "discovery";

/// A file of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Wide,
    Narrow,
    Custom,
    Secrets,
    Events,
    IstioPods,
    Version,
}

impl File {
    pub(super) const ALL: [Self; 7] =
        [Self::Wide, Self::Narrow, Self::Custom, Self::Secrets, Self::Events, Self::IstioPods, Self::Version];

    /// Where it is in the archive.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Wide => "cluster/k8s-cluster-resources",
            Self::Narrow => "cluster/k8s-resources",
            Self::Custom => "cluster/crs",
            Self::Secrets => "cluster/secrets",
            Self::Events => "cluster/events",
            Self::IstioPods => "cluster/pods",
            Self::Version => "cluster/cluster-context",
        }
    }

    /// Whether it is left out with the objects of the cluster.
    pub(super) const fn is_dump(self) -> bool {
        !matches!(self, Self::IstioPods | Self::Version)
    }

    /// Its text.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn text(
        self,
        cluster: &Kubernetes,
        settings: &Settings,
        istio: &str,
    ) -> anyhow::Result<String> {
        let own = settings.selections.namespaces();
        let mut places: Vec<Option<&str>> = own.iter().copied().map(Some).collect();
        if places.is_empty() {
            places.push(None);
        }
        let mut items = Vec::new();
        match self {
            Self::Version => {
                let version = cluster.json("/version").await?.unwrap_or_default();
                return Ok(format!("{}\n{version:#}\n", cluster.server));
            }
            Self::Wide => {
                for (version, plural) in WIDE {
                    items.extend(list(cluster, version, plural, None).await?);
                }
            }
            Self::IstioPods => items = list(cluster, "api/v1", "pods", Some(istio)).await?,
            Self::Custom => {
                for (version, plural, is_inside) in custom(cluster).await? {
                    for place in if is_inside { &places[..] } else { &[None] } {
                        items.extend(list(cluster, &version, &plural, *place).await?);
                    }
                }
            }
            Self::Narrow | Self::Secrets | Self::Events => {
                let all: &[(&str, &str)] = match self {
                    Self::Secrets => &[("api/v1", "secrets")],
                    Self::Events => &[("api/v1", "events")],
                    _ => &NARROW,
                };
                for (version, plural) in all {
                    for place in &places {
                        items.extend(list(cluster, version, plural, *place).await?);
                    }
                }
            }
        }
        for item in &mut items {
            clean(item, settings.has_secrets);
        }
        let text = serde_json::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        Ok(yaml::render(&serde_json::from_str(&text)?))
    }
}

/// Leaves out what is secret, and what nobody reads.
fn clean(item: &mut Value, has_secrets: bool) {
    if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for version in item.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(version) = version.as_object_mut() {
            version.remove("schema");
        }
    }
    if has_secrets {
        return;
    }
    if item["kind"] == "Secret" { redact::secret(item) } else { redact::value(item) }
}

/// All objects of a kind; none where the cluster does not have it.
async fn list(
    cluster: &Kubernetes,
    version: &str,
    plural: &str,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let within = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
    let path = format!("/{version}/{within}{plural}?limit={PAGE}");
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let page = if next.is_empty() { path.clone() } else { format!("{path}&continue={next}") };
        let Some(mut answer) = cluster.json(&page).await? else { return Ok(items) };
        let kind = answer["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        let version = answer["apiVersion"].clone();
        next = answer["metadata"]["continue"].as_str().map(encoded).unwrap_or_default();
        let Value::Array(found) = answer["items"].take() else { return Ok(items) };
        items.extend(found.into_iter().map(|mut item| {
            item["kind"] = kind.as_str().into();
            item["apiVersion"] = version.clone();
            item
        }));
        if next.is_empty() {
            return Ok(items);
        }
    }
}

/// A text as part of the query of a URL.
fn encoded(text: &str) -> String {
    let part = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(part).collect()
}

/// Kinds of the mesh's own objects: version, plural, and whether they are in namespaces.
async fn custom(cluster: &Kubernetes) -> anyhow::Result<Vec<(String, String, bool)>> {
    let all = list(cluster, WIDE[2].0, WIDE[2].1, None).await?;
    Ok(all.iter().filter_map(kind).collect())
}

fn kind(definition: &Value) -> Option<(String, String, bool)> {
    let spec = definition.get("spec")?;
    let group = spec["group"].as_str()?;
    if !(group.ends_with(MESH[0]) || group == MESH[1]) {
        return None;
    }
    let version = spec["versions"].as_array()?.iter().find(|version| version["storage"] == true)?;
    let name = version["name"].as_str().filter(|_| version["served"] != false)?;
    let plural = spec["names"]["plural"].as_str()?;
    Some((format!("apis/{group}/{name}"), plural.to_owned(), spec["scope"] != "Cluster"))
}

/// A container whose log is in the report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) pod: Proxy,
    pub(super) name: String,
    has_restarted: bool,
}

impl Container {
    /// Whether it is istiod's; else it is a proxy's.
    pub(super) fn is_istiod(&self) -> bool {
        self.name == DISCOVERY
    }

    /// What it has printed, now and before it was restarted last.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn log(&self, cluster: &Kubernetes, settings: &Settings) -> anyhow::Result<String> {
        let now = self.printed(cluster, settings, false).await?;
        if !self.has_restarted {
            return Ok(now);
        }
        // That of a container that is gone may be gone, too.
        let before = self.printed(cluster, settings, true).await.unwrap_or_default();
        Ok(format!(
            "========= Previous log present (appended at the end) =========\n\n{now}\n\n========= Previous log =========\n\n{before}"
        ))
    }

    async fn printed(
        &self,
        cluster: &Kubernetes,
        settings: &Settings,
        is_before: bool,
    ) -> anyhow::Result<String> {
        let Proxy { name, namespace } = &self.pod;
        let mut path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={}", self.name);
        if let Some(tail) = settings.tail {
            path += &format!("&tailLines={tail}");
        }
        if let Some(start) = settings.range.start {
            let format = &time::format_description::well_known::Rfc3339;
            path += &format!("&sinceTime={}", encoded(&start.format(format)?));
        }
        if is_before {
            path += "&previous=true";
        }
        Ok(cluster.text(&path).await?.unwrap_or_default())
    }
}

/// Containers of istiods, and of the proxies that are selected.
pub(super) fn containers(pods: &[Pod], settings: &Settings, istio: &str) -> Vec<Container> {
    let mut found = Vec::new();
    for pod in pods {
        let spec = pod.spec.as_ref();
        let all = spec
            .into_iter()
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let deployment = owner(pod);
        for container in all {
            let is_istiod = container.name == DISCOVERY
                && pod.labels().get("app").is_some_and(|app| app == "istiod")
                && namespace == istio;
            let subject = Subject {
                namespace: &namespace,
                deployment: &deployment,
                pod: &name,
                labels: Some(pod.labels()),
                annotations: Some(pod.annotations()),
                container: &container.name,
            };
            if is_istiod || container.name == PROXY && settings.selections.has(&subject) {
                found.push(Container {
                    pod: Proxy { name: name.clone(), namespace: namespace.clone() },
                    name: container.name.clone(),
                    has_restarted: has_restarted(pod, &container.name),
                });
            }
        }
    }
    found
}

fn has_restarted(pod: &Pod, container: &str) -> bool {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    all.filter(|one| one.name == container).any(|one| one.restart_count > 0)
}

/// What owns a pod: of a ReplicaSet, the Deployment.
fn owner(pod: &Pod) -> String {
    let Some(owner) = pod.owner_references().first() else { return String::new() };
    match (owner.kind.as_str(), owner.name.rsplit_once('-')) {
        ("ReplicaSet", Some((deployment, _))) => deployment.to_owned(),
        _ => owner.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_mesh_are_told_from_others() {
        let definition = |group: &str, scope: &str| {
            json!({"spec": {
                "group": group, "scope": scope, "names": {"plural": "things"},
                "versions": [{"name": "v1alpha1", "served": true, "storage": false}, {"name": "v1", "served": true, "storage": true}],
            }})
        };
        assert_eq!(
            kind(&definition("networking.istio.io", "Namespaced")).unwrap(),
            ("apis/networking.istio.io/v1".to_owned(), "things".to_owned(), true)
        );
        assert!(!kind(&definition("gateway.networking.k8s.io", "Cluster")).unwrap().2);
        assert_eq!(kind(&definition("example.org", "Namespaced")), None);
    }

    #[test]
    fn istiods_and_selected_proxies_are_in() {
        let pods: Vec<Pod> = serde_json::from_value(json!([
            {
                "metadata": {"name": "istiod-1", "namespace": "istio-system", "labels": {"app": "istiod"}},
                "spec": {"containers": [{"name": "discovery"}]},
            },
            {
                "metadata": {
                    "name": "web-5d4-x", "namespace": "shop",
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4", "apiVersion": "apps/v1", "uid": "1"}],
                },
                "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]},
                "status": {"initContainerStatuses": [
                    {"name": "istio-proxy", "restartCount": 2, "ready": true, "image": "", "imageID": ""},
                ]},
            },
            {
                "metadata": {"name": "db-0", "namespace": "shop"},
                "spec": {"containers": [{"name": "istio-proxy"}]},
            },
        ]))
        .unwrap();
        let mut settings = super::super::tests::settings();
        settings.selections.include = vec![super::super::selection::Selection::read("shop/web").unwrap()];
        let found = containers(&pods, &settings, "istio-system");
        let names: Vec<(String, bool)> =
            found.iter().map(|one| (one.pod.to_string(), one.has_restarted)).collect();
        assert_eq!(names, [("istiod-1.istio-system".to_owned(), false), ("web-5d4-x.shop".to_owned(), true)]);
        assert!(found[0].is_istiod() && !found[1].is_istiod());
    }

    #[test]
    fn objects_lose_secrets_and_what_nobody_reads() {
        let mut secret = json!({
            "kind": "Secret", "metadata": {"name": "a", "managedFields": [1]}, "data": {"k": "bWFya2Vy"},
        });
        let mut full = secret.clone();
        clean(&mut secret, false);
        assert_eq!(
            secret,
            json!({"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": redact::REMOVED}})
        );
        clean(&mut full, true);
        assert_eq!(full["data"]["k"], "bWFya2Vy");
    }
}
