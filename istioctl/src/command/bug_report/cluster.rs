//! Objects of a cluster, and logs of its pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::selection::Subject;
use super::settings::Settings;
use crate::kubernetes::Kubernetes;
use crate::proxies::Proxy;
use crate::query::encoded;
use crate::render::yaml;

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
/// Bytes of a log at most.
pub(super) const LONGEST: u64 = 64 << 20;
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
        let mut found = Found::default();
        match self {
            Self::Version => {
                let version = cluster.json("/version").await?.unwrap_or_default();
                return Ok(format!("{}\n{version:#}\n", settings.redactor.text(&cluster.server)));
            }
            Self::Wide => {
                for (version, plural) in WIDE {
                    found.take(plural, list(cluster, version, plural, None).await);
                }
            }
            Self::IstioPods => found.take("pods", list(cluster, "api/v1", "pods", Some(istio)).await),
            Self::Custom => {
                for (version, plural, is_inside) in custom(cluster).await? {
                    for place in if is_inside { &places[..] } else { &[None] } {
                        found.take(&plural, list(cluster, &version, &plural, *place).await);
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
                        found.take(plural, list(cluster, version, plural, *place).await);
                    }
                }
            }
        }
        let (mut items, notes) = found.parts()?;
        for item in &mut items {
            shorten(item);
            if self == Self::Secrets {
                settings.redactor.secret(item);
            } else {
                settings.redactor.object(item);
            }
        }
        let text = serde_json::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        Ok(settings.redactor.text(&notes) + &yaml::render(&serde_json::from_str(&text)?))
    }
}

/// Objects of several kinds, and which of them could not be had.
#[derive(Default)]
struct Found {
    items: Vec<Value>,
    failures: Vec<(String, anyhow::Error)>,
    /// Whether something was answered.
    is_answered: bool,
}

impl Found {
    fn take(&mut self, plural: &str, answer: anyhow::Result<Vec<Value>>) {
        match answer {
            Ok(items) => {
                self.items.extend(items);
                self.is_answered = true;
            }
            Err(error) => self.failures.push((plural.to_owned(), error)),
        }
    }

    /// The objects, and comments about what is missing.
    fn parts(mut self) -> anyhow::Result<(Vec<Value>, String)> {
        if !self.is_answered && !self.failures.is_empty() {
            let (plural, error) = self.failures.swap_remove(0);
            return Err(error.context(plural));
        }
        let note = |(plural, error): &(String, anyhow::Error)| {
            format!("# {plural} are missing: {}\n", format!("{error:#}").replace('\n', " "))
        };
        Ok((self.items, self.failures.iter().map(note).collect()))
    }
}

/// Leaves out what nobody reads.
fn shorten(item: &mut Value) {
    if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for version in item.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(version) = version.as_object_mut() {
            version.remove("schema");
        }
    }
}

/// All objects of a kind; none where the cluster does not have it.
async fn list(
    cluster: &Kubernetes,
    version: &str,
    plural: &str,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let within = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
    let mut items = Vec::new();
    cluster.each(&format!("/{version}/{within}{plural}"), "", |item| items.push(item)).await?;
    Ok(items)
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
        let mut path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={}&limitBytes={LONGEST}",
            self.name
        );
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
        Ok(marked(cluster.text(&path).await?.unwrap_or_default()))
    }
}

/// A log, with a word at its end if it was longer.
fn marked(mut text: String) -> String {
    if u64::try_from(text.len()).is_ok_and(|length| length >= LONGEST) {
        text +=
            &format!("\n========= Cut after {LONGEST} bytes: --tail or --duration has its end =========\n");
    }
    text
}

/// Pods of the namespaces that are selected, and of the control plane's; what may not be
/// read goes to the errors.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn pods(
    cluster: &Kubernetes,
    settings: &Settings,
    istio: &str,
    errors: &mut Vec<String>,
) -> anyhow::Result<Vec<Pod>> {
    let mut found = Vec::new();
    for place in places(&settings.selections.namespaces(), istio) {
        match cluster.list_in::<Pod>(place, "").await {
            Ok(pods) => found.extend(pods),
            Err(error) if matches!(error.downcast_ref(), Some(kube::Error::Api(_))) => {
                errors.push(format!("pods of {}: {error:#}", place.unwrap_or("all namespaces")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Where pods are looked for; everywhere, without a selection.
fn places<'a>(selected: &[&'a str], istio: &'a str) -> Vec<Option<&'a str>> {
    if selected.is_empty() {
        return vec![None];
    }
    let all: BTreeSet<&str> = selected.iter().copied().chain([istio]).collect();
    all.into_iter().map(Some).collect()
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
    fn only_namespaces_that_are_wanted_are_looked_into() {
        assert_eq!(places(&[], "istio-system"), [None]);
        assert_eq!(
            places(&["shop", "a", "shop"], "istio-system"),
            [Some("a"), Some("istio-system"), Some("shop")]
        );
    }

    #[test]
    fn a_kind_that_cannot_be_read_leaves_the_others() {
        let refused = || Err(anyhow::anyhow!("403"));
        let mut found = Found::default();
        found.take("pods", refused());
        found.take("services", Ok(vec![json!({"a": 1})]));
        let (items, notes) = found.parts().unwrap();
        assert_eq!((items.len(), notes.as_str()), (1, "# pods are missing: 403\n"));
        let mut none = Found::default();
        none.take("pods", refused());
        assert_eq!(format!("{:#}", none.parts().unwrap_err()), "pods: 403");
        assert!(Found::default().parts().unwrap().0.is_empty());
    }

    #[test]
    fn a_log_that_was_cut_says_so() {
        assert_eq!(marked("short".into()), "short");
        let long = marked("x".repeat(usize::try_from(LONGEST).unwrap()));
        assert!(long.contains("Cut after 67108864 bytes"));
    }

    #[test]
    fn objects_lose_what_nobody_reads() {
        let mut object = json!({
            "kind": "Thing", "metadata": {"name": "a", "managedFields": [1]}, "spec": {"versions": [{"name": "v1", "schema": {}}]},
        });
        shorten(&mut object);
        assert_eq!(
            object,
            json!({"kind": "Thing", "metadata": {"name": "a"}, "spec": {"versions": [{"name": "v1"}]}})
        );
    }
}
