//! `experimental injector list`: who injects which namespaces, and which pods are
//! of another revision than new ones would be.

use std::collections::BTreeMap;
use std::io::Write;

use analysis::kube::{LabelSelector, Webhook};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::{Resource, ResourceExt as _};
use names::label::{INJECT, INJECTION, REVISION};
use serde::Deserialize;

use crate::args::Global;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::render::table::{NARROW, Table};

/// Labels of configurations of injectors.
const INJECTORS: &str = "app=sidecar-injector";
/// Namespaces that are never injected.
pub(super) const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Webhooks by whose namespaces an injector is known.
const BY_NAMESPACE: [&str; 2] =
    ["rev.namespace.sidecar-injector.istio.io", "namespace.sidecar-injector.istio.io"];
/// Revision of pods that have no sidecar.
const NONE: &str = "<non-Istio>";

pub(super) type Labels = BTreeMap<String, String>;

/// A configuration of injecting webhooks.
#[derive(Debug, Default)]
pub(super) struct Injector {
    pub(super) name: String,
    pub(super) revision: String,
    pub(super) webhooks: Vec<Webhook>,
}

impl Injector {
    /// Reads what the cluster has.
    ///
    /// # Errors
    /// When it is not readable.
    pub(super) fn read(config: &MutatingWebhookConfiguration) -> anyhow::Result<Self> {
        Ok(Self {
            name: config.name_any(),
            revision: config.labels().get(REVISION).cloned().unwrap_or_default(),
            webhooks: serde_json::from_value(serde_json::to_value(
                config.webhooks.as_deref().unwrap_or_default(),
            )?)?,
        })
    }
}

/// Whether labels are selected; all are without a selector.
pub(super) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_none_or(|selector| selector.selects(|name| labels.get(name).map(String::as_str)))
}

/// Prints both tables.
///
/// # Errors
/// When the API server does not answer.
pub async fn run(global: &Global, out: &mut impl Write) -> Result {
    let cluster = Kubernetes::open(global).await?;
    let mut namespaces: Vec<Place> = cluster
        .list::<Namespace>("")
        .await?
        .iter()
        .map(|one| Place { name: one.name_any(), labels: one.labels().clone() })
        .filter(|one| !SYSTEM.contains(&one.name.as_str()) && one.name != global.istio_namespace)
        // Pods of ambient mode have no sidecars.
        .filter(|one| one.labels.get("istio.io/dataplane-mode").is_none_or(|mode| mode != "ambient"))
        .collect();
    if let Some(wanted) =
        global.namespace.as_ref().filter(|wanted| namespaces.iter().any(|one| one.name == **wanted))
    {
        namespaces.retain(|one| one.name == *wanted);
    }
    let injectors = cluster.list::<MutatingWebhookConfiguration>(INJECTORS).await?;
    let injectors: Vec<Injector> = injectors.iter().map(Injector::read).collect::<anyhow::Result<_>>()?;
    let mut pods: BTreeMap<String, Vec<Sidecar>> = BTreeMap::new();
    for pod in cluster.list_in::<Pod>(None, "").await? {
        pods.entry(pod.namespace().unwrap_or_default()).or_default().push(Sidecar::of(&pod));
    }
    let text = by_namespace(&namespaces, &injectors, &pods);
    writeln!(out, "{text}")?;
    let maps = cluster.list_in::<ConfigMap>(None, REVISION).await?;
    let images =
        maps.iter().filter_map(|map| Some((map.labels().get(REVISION)?.clone(), image(map)?))).collect();
    Ok(out.write_all(by_injector(&namespaces, &injectors, &images).as_bytes())?)
}

/// A namespace.
#[derive(Debug)]
struct Place {
    name: String,
    labels: Labels,
}

/// What a pod has of Istio.
#[derive(Debug, Default)]
struct Sidecar {
    /// Empty without a sidecar.
    revision: String,
    is_disabled: bool,
}

impl Sidecar {
    fn of(pod: &Pod) -> Self {
        let annotations = pod.annotations();
        // Where the injector has not written it beside, it is part of its report.
        let reported = || {
            #[derive(Deserialize)]
            struct Status {
                #[serde(default)]
                revision: String,
            }
            let status = annotations.get("sidecar.istio.io/status")?;
            Some(serde_json::from_str::<Status>(status).ok()?.revision)
        };
        let revision = annotations.get(REVISION).cloned().or_else(reported).unwrap_or_default();
        let wish =
            pod.meta().labels.as_ref().and_then(|labels| labels.get(INJECT)).or(annotations.get(INJECT));
        Self { revision, is_disabled: wish.is_some_and(|wish| wish.eq_ignore_ascii_case("false")) }
    }
}

fn by_namespace(
    namespaces: &[Place],
    injectors: &[Injector],
    pods: &BTreeMap<String, Vec<Sidecar>>,
) -> String {
    let mut table = Table::new(NARROW);
    table.row(["NAMESPACE", "ISTIO-REVISION", "POD-REVISIONS"]);
    let mut is_empty = true;
    for namespace in namespaces {
        let revision = revision_of(namespace, injectors);
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for pod in pods.get(&namespace.name).into_iter().flatten() {
            let shown = if pod.revision.is_empty() { NONE } else { &pod.revision };
            counts.entry(shown).or_default().add(pod, &revision);
        }
        if counts.is_empty() && !revision.is_empty() {
            counts.insert(&revision, Count::default());
        }
        for (of, count) in &counts {
            is_empty = false;
            table.row([namespace.name.clone(), revision.clone(), count.text(of)]);
        }
    }
    if is_empty { "No Istio injected namespaces present.\n".into() } else { table.render() }
}

/// The revision of new pods of a namespace.
fn revision_of(namespace: &Place, injectors: &[Injector]) -> String {
    let found = injectors.iter().find(|injector| {
        injector.webhooks.iter().any(|webhook| {
            webhook
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selects(Some(selector), &namespace.labels))
                && is_by_namespace(webhook)
        })
    });
    if let Some(injector) = found {
        return injector.revision.clone();
    }
    match (namespace.labels.get(REVISION).map(String::as_str), namespace.labels.get(INJECTION)) {
        (Some(revision), _) if !revision.is_empty() => format!("MISSING/{revision}"),
        (_, Some(injection)) if injection != "disabled" => format!("MISSING/{INJECTION}"),
        _ => String::new(),
    }
}

/// Whether a webhook injects all pods of its namespaces that do not object.
fn is_by_namespace(webhook: &Webhook) -> bool {
    let needs_label = |selector: &LabelSelector| !selects(Some(selector), &Labels::new());
    !webhook.object_selector.as_ref().is_some_and(needs_label)
}

#[derive(Debug, Default)]
struct Count {
    pods: usize,
    disabled: usize,
    outdated: usize,
}

impl Count {
    fn add(&mut self, pod: &Sidecar, wanted: &str) {
        self.pods += 1;
        if pod.is_disabled {
            self.disabled += 1;
        } else if pod.revision != wanted {
            self.outdated += 1;
        }
    }

    fn text(&self, revision: &str) -> String {
        let Self { pods, disabled, outdated } = self;
        if *pods == 0 {
            return "<no pods>".into();
        }
        let mut text = format!("{revision}: {pods}");
        if *disabled > 0 {
            text += &format!(" (injection disabled: {disabled})");
        }
        if *outdated > 0 {
            text += &format!(" NEEDS RESTART: {outdated}");
        }
        text
    }
}

fn by_injector(namespaces: &[Place], injectors: &[Injector], images: &Labels) -> String {
    if injectors.is_empty() {
        return "No Istio injection hooks present.\n".into();
    }
    let mut table = Table::new(NARROW);
    table.row(["NAMESPACES", "INJECTOR-HOOK", "ISTIO-REVISION", "SIDECAR-IMAGE"]);
    for Injector { name, revision, webhooks } in injectors {
        let known = webhooks.iter().filter(|webhook| BY_NAMESPACE.contains(&&*webhook.name));
        let known: Vec<&Webhook> = known.collect();
        let mut places: Vec<&str> = namespaces
            .iter()
            .filter(|one| {
                known.iter().any(|webhook| selects(webhook.namespace_selector.as_ref(), &one.labels))
            })
            .map(|one| one.name.as_str())
            .collect();
        if places.is_empty() {
            places.push("DOES NOT AUTOINJECT");
        }
        let image = images.get(revision).map(String::as_str).unwrap_or_default();
        for place in places {
            table.row([place, name, revision, image]);
        }
    }
    table.render()
}

/// The image of sidecars, from the settings of an injector.
fn image(map: &ConfigMap) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Values {
        global: Settings,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Settings {
        hub: String,
        tag: serde_json::Value,
        proxy: Proxy,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Proxy {
        image: String,
    }
    let Settings { hub, tag, proxy } =
        serde_saphyr::from_str::<Values>(map.data.as_ref()?.get("values")?).ok()?.global;
    if proxy.image.contains('/') {
        return Some(proxy.image);
    }
    let tag = tag.as_str().map_or_else(|| tag.to_string(), ToOwned::to_owned);
    Some(format!("{hub}/{}:{tag}", if proxy.image.is_empty() { "proxyv2" } else { &proxy.image }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn injector(name: &str, revision: &str, label: &str, value: &str) -> Injector {
        let config = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"istio.io/rev": revision}},
            "webhooks": [
                {
                    "name": "rev.namespace.sidecar-injector.istio.io",
                    "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {},
                    "namespaceSelector": {"matchExpressions": [{"key": label, "operator": "In", "values": [value]}]},
                    "objectSelector": {"matchExpressions": [{"key": INJECT, "operator": "NotIn", "values": ["false"]}]},
                },
                {
                    "name": "object.sidecar-injector.istio.io",
                    "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {},
                    "namespaceSelector": {"matchExpressions": [{"key": label, "operator": "DoesNotExist"}]},
                    "objectSelector": {"matchExpressions": [{"key": INJECT, "operator": "In", "values": ["true"]}]},
                },
            ],
        }));
        Injector::read(&config.unwrap()).unwrap()
    }

    fn place(name: &str, labels: &[(&str, &str)]) -> Place {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Place { name: name.into(), labels: labels.collect() }
    }

    fn pod(value: &serde_json::Value) -> Sidecar {
        Sidecar::of(&serde_json::from_value(json!({"metadata": value})).unwrap())
    }

    #[test]
    fn pods_of_another_revision_need_a_restart() {
        let injectors = [injector("i", "canary", "istio.io/rev", "prod")];
        let namespaces = [
            place("a", &[("istio.io/rev", "prod")]),
            place("b", &[("istio.io/rev", "prod")]),
            place("c", &[("istio.io/rev", "gone")]),
            place("d", &[("istio-injection", "disabled")]),
            place("e", &[]),
        ];
        let pods = BTreeMap::from([
            (
                "a".to_owned(),
                vec![
                    pod(&json!({"annotations": {"istio.io/rev": "canary"}})),
                    pod(&json!({"annotations": {"sidecar.istio.io/status": "{\"revision\":\"old\"}"}})),
                    pod(&json!({"labels": {INJECT: "false"}, "annotations": {INJECT: "true"}})),
                ],
            ),
            ("e".to_owned(), vec![pod(&json!({}))]),
        ]);
        assert_eq!(
            by_namespace(&namespaces, &injectors, &pods),
            "NAMESPACE ISTIO-REVISION POD-REVISIONS\n\
             a         canary         <non-Istio>: 1 (injection disabled: 1)\n\
             a         canary         canary: 1\n\
             a         canary         old: 1 NEEDS RESTART: 1\n\
             b         canary         <no pods>\n\
             c         MISSING/gone   <no pods>\n\
             e                        <non-Istio>: 1\n"
        );
        assert_eq!(by_namespace(&[], &injectors, &pods), "No Istio injected namespaces present.\n");
    }

    #[test]
    fn injectors_are_told_with_their_namespaces_and_image() {
        let injectors =
            [injector("i", "canary", "istio.io/rev", "prod"), injector("j", "x", "istio.io/rev", "x")];
        let map = |values: &str| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {}, "data": {"values": values}})).unwrap()
        };
        let images = BTreeMap::from([(
            "canary".to_owned(),
            image(&map(r#"{"global": {"hub": "h", "tag": 1.5, "proxy": {"image": "p"}}}"#)).unwrap(),
        )]);
        assert_eq!(
            by_injector(&[place("a", &[("istio.io/rev", "prod")])], &injectors, &images),
            "NAMESPACES          INJECTOR-HOOK ISTIO-REVISION SIDECAR-IMAGE\n\
             a                   i             canary         h/p:1.5\n\
             DOES NOT AUTOINJECT j             x              \n"
        );
        assert_eq!(image(&map("global: {proxy: {image: a/b:c}}")).unwrap(), "a/b:c");
        assert_eq!(by_injector(&[], &[], &images), "No Istio injection hooks present.\n");
    }
}
