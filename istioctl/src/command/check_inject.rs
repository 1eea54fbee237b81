//! `experimental check-inject`: whether a pod is injected, by whom, and why.

use std::io::{IsTerminal as _, Write};

use analysis::kube::{LabelSelector, Webhook};
use anyhow::{Context as _, anyhow};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;
use names::label::{INJECT, INJECTION};

use super::injector::{Injector, Labels, SYSTEM, selects};
use crate::args::Global;
use crate::args::injection::CheckInject as Args;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::proxies::Mesh;
use crate::render::table::Table;

/// Blanks between columns.
const PADDING: usize = 2;
/// How names of Istio's webhooks end.
const ISTIO: &str = "istio.io";
/// The label of a namespace that the API server sets.
const NAME: &str = "kubernetes.io/metadata.name";
/// Label of an injector that leaves its pods to that of a tag.
const DEACTIVATED: &str = "istio.io/deactivated";

/// Says it of each injector.
///
/// # Errors
/// When there is no such pod, or the API server does not answer.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let wanted = match (&args.pod, args.labels.as_str()) {
        (None, "") => {
            return Err(anyhow!(
                "check-inject requires only [<resource-type>/]<resource-name>[.<namespace>], or specify labels flag"
            )
            .into());
        }
        (pod, _) => pod.as_deref(),
    };
    let cluster = Kubernetes::open(global).await?;
    let (pod, namespace) = match wanted {
        Some(name) => {
            let found = Mesh::open(global).await?.proxy(name).await?;
            let pod = cluster.get::<Pod>(&found.namespace, &found.name).await?;
            let pod = pod.with_context(|| {
                format!(
                    "pods {:?} not found in the namespace {:?}; -n names another one",
                    found.name, found.namespace
                )
            })?;
            (Subject::of(&pod), found.namespace)
        }
        None => {
            let subject = Subject { labels: labels(&args.labels)?, refusal: None };
            (subject, cluster.namespace.clone())
        }
    };
    let found = cluster.find::<Namespace>(&namespace).await?;
    let place = found.with_context(|| format!("namespaces {namespace:?} not found"))?.labels().clone();
    let injectors = cluster.list::<MutatingWebhookConfiguration>("").await?;
    let injectors = injectors.iter().map(Injector::read).collect::<anyhow::Result<Vec<_>>>()?;
    let verdicts: Vec<Verdict> = injectors
        .iter()
        .filter(|injector| injector.webhooks.iter().any(|webhook| webhook.name.ends_with(ISTIO)))
        .map(|injector| Verdict::of(injector, &pod, &namespace, &place))
        .collect();
    let text = shown(&verdicts, std::io::stdout().is_terminal());
    Ok(out.write_all(text.as_bytes())?)
}

fn labels(text: &str) -> anyhow::Result<Labels> {
    let pair = |part: &str| {
        let (name, value) =
            part.split_once('=').with_context(|| format!("--labels {part:?}: write NAME=VALUE"))?;
        Ok((name.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

/// A pod, or what would be one.
#[derive(Debug, Default)]
struct Subject {
    labels: Labels,
    /// Why the injector leaves it as it is, though the webhook is called.
    refusal: Option<String>,
}

impl Subject {
    fn of(pod: &Pod) -> Self {
        let uses_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
        let wish = pod.annotations().get(INJECT).filter(|_| !pod.labels().contains_key(INJECT));
        let refusal = if uses_host {
            Some("Pod uses the network of its node (hostNetwork), preventing injection".to_owned())
        } else {
            wish.filter(|wish| *wish == "false")
                .map(|wish| format!("Pod has {INJECT}={wish} annotation, preventing injection"))
        };
        Self { labels: pod.labels().clone(), refusal }
    }
}

/// What an injector does with a pod.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    name: String,
    revision: String,
    is_injected: bool,
    reason: String,
}

impl Verdict {
    fn of(injector: &Injector, pod: &Subject, namespace: &str, place: &Labels) -> Self {
        let Injector { name, revision, webhooks } = injector;
        let (is_injected, reason) = match webhooks.iter().find_map(|webhook| called(webhook, pod, place)) {
            Some(_) if SYSTEM.contains(&namespace) => {
                (false, format!("Namespace {namespace} is one of the system's, preventing injection"))
            }
            Some(reason) => match &pod.refusal {
                Some(refusal) => (false, refusal.clone()),
                None => (true, reason),
            },
            None => {
                let prevented = webhooks.iter().find_map(|webhook| prevented(webhook, &pod.labels, place));
                (false, prevented.unwrap_or_else(|| unmatched(webhooks)))
            }
        };
        Self { name: name.clone(), revision: revision.clone(), is_injected, reason }
    }
}

/// Why a webhook is called for a pod, if it is.
fn called(webhook: &Webhook, pod: &Subject, place: &Labels) -> Option<String> {
    let (namespaces, objects) = (webhook.namespace_selector.as_ref(), webhook.object_selector.as_ref());
    if !selects(namespaces, place) || !selects(objects, &pod.labels) {
        return None;
    }
    Some(match (matched(namespaces, place), matched(objects, &pod.labels)) {
        (Some(of_place), Some(of_pod)) => {
            format!("Namespace label {of_place} matches, and pod label {of_pod} matches")
        }
        (Some(of_place), None) if of_place.starts_with(NAME) => {
            format!("Namespace label {of_place} matches (Automatic injection is enabled in all namespaces).")
        }
        (Some(of_place), None) => format!("Namespace label {of_place} matches"),
        (None, Some(of_pod)) => format!("Pod label {of_pod} matches"),
        (None, None) => "The injection webhook needs no label".to_owned(),
    })
}

/// The first label that a selector looks at and that is there.
fn matched(selector: Option<&LabelSelector>, labels: &Labels) -> Option<String> {
    let asked = selector?.match_expressions.iter().filter(|one| matches!(&*one.operator, "In" | "NotIn"));
    asked.filter_map(|one| Some(format!("{}={}", one.key, labels.get(&*one.key)?))).next()
}

/// The label that keeps a webhook from being called, if there is one.
fn prevented(webhook: &Webhook, pod: &Labels, place: &Labels) -> Option<String> {
    let objects = webhook.object_selector.as_ref();
    if selects(webhook.namespace_selector.as_ref(), place) {
        let prevents = |one: &&analysis::kube::Expression| {
            pod.get(&*one.key).is_some_and(|value| match &*one.operator {
                "DoesNotExist" => true,
                "NotIn" => one.values.iter().any(|known| **known == **value),
                _ => false,
            })
        };
        let found = objects?.match_expressions.iter().find(prevents)?;
        let value = pod.get(&*found.key)?;
        return Some(format!("Pod has {}={value} label, preventing injection", found.key));
    }
    let injection = place.get(INJECTION).filter(|value| *value != "enabled")?;
    selects(objects, pod)
        .then(|| format!("Namespace has {INJECTION}={injection} label, preventing injection"))
}

/// What would have to be there.
fn unmatched(webhooks: &[Webhook]) -> String {
    let is_never = |selector: &Option<LabelSelector>| {
        selector.as_ref().is_some_and(|selector| selector.match_labels.get(DEACTIVATED).is_some())
    };
    if webhooks.iter().any(|one| is_never(&one.namespace_selector) && is_never(&one.object_selector)) {
        return "The injection webhook is deactivated, and will never match labels.".to_owned();
    }
    let wanted = |of: fn(&Webhook) -> Option<&LabelSelector>| {
        let expressions = webhooks.iter().filter_map(of).flat_map(|selector| &selector.match_expressions);
        let values = expressions
            .filter(|one| &*one.operator == "In")
            .flat_map(|one| one.values.iter().map(|value| format!("{}={value}", one.key)));
        values.collect::<Vec<_>>().join(", ")
    };
    format!(
        "No matching namespace labels ({}) or pod labels ({})",
        wanted(|webhook| webhook.namespace_selector.as_ref()),
        wanted(|webhook| webhook.object_selector.as_ref())
    )
}

fn shown(verdicts: &[Verdict], is_colored: bool) -> String {
    if verdicts.is_empty() {
        return "ERROR: no Istio injection hooks present.\n".into();
    }
    let mut table = Table::new(PADDING);
    table.row(["WEBHOOK", "REVISION", "INJECTED", "REASON"]);
    for Verdict { name, revision, is_injected, reason } in verdicts {
        table.row([name.as_str(), revision, if *is_injected { "✔" } else { "✘" }, reason]);
    }
    let mut text = table.render();
    if is_colored {
        // After the columns are laid out.
        text = text.replace('✔', "\x1b[32m✔\x1b[0m").replace('✘', "\x1b[31m✘\x1b[0m");
    }
    if verdicts.iter().filter(|verdict| verdict.is_injected).count() > 1 {
        text += "ERROR: multiple webhooks will inject, which can lead to errors\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"key": key, "operator": operator, "values": values})
    }

    /// An injector of the default revision, as the chart makes it.
    fn injector() -> Injector {
        let webhook = |name: &str, namespaces: Value, objects: Value| -> Value {
            json!({
                "name": format!("{name}.sidecar-injector.istio.io"),
                "namespaceSelector": {"matchExpressions": namespaces},
                "objectSelector": {"matchExpressions": objects},
            })
        };
        let not_false = expression(INJECT, "NotIn", &["false"]);
        let webhooks = json!([
            webhook(
                "rev.namespace",
                json!([
                    expression("istio.io/rev", "In", &["default"]),
                    expression(INJECTION, "DoesNotExist", &[])
                ]),
                json!([not_false]),
            ),
            webhook("namespace", json!([expression(INJECTION, "In", &["enabled"])]), json!([not_false])),
            webhook(
                "object",
                json!([
                    expression(INJECTION, "DoesNotExist", &[]),
                    expression("istio.io/rev", "DoesNotExist", &[])
                ]),
                json!([expression(INJECT, "In", &["true"]), expression("istio.io/rev", "DoesNotExist", &[])]),
            ),
        ]);
        let webhooks = serde_json::from_value(webhooks).unwrap();
        Injector { name: "istio-sidecar-injector".into(), revision: "default".into(), webhooks }
    }

    fn verdict(place: &str, pod: &str) -> (bool, String) {
        let pod = Subject { labels: labels(pod).unwrap(), refusal: None };
        let verdict = Verdict::of(&injector(), &pod, "shop", &labels(place).unwrap());
        (verdict.is_injected, verdict.reason)
    }

    #[test]
    fn the_label_that_decides_is_named() {
        for (place, pod, is_injected, reason) in [
            ("istio-injection=enabled", "", true, "Namespace label istio-injection=enabled matches"),
            ("", "sidecar.istio.io/inject=true", true, "Pod label sidecar.istio.io/inject=true matches"),
            (
                "istio.io/rev=default",
                "sidecar.istio.io/inject=yes",
                true,
                "Namespace label istio.io/rev=default matches, and pod label sidecar.istio.io/inject=yes matches",
            ),
            (
                "istio-injection=enabled",
                "sidecar.istio.io/inject=false",
                false,
                "Pod has sidecar.istio.io/inject=false label, preventing injection",
            ),
            (
                "istio-injection=disabled",
                "",
                false,
                "Namespace has istio-injection=disabled label, preventing injection",
            ),
            (
                "",
                "sidecar.istio.io/inject=true,istio.io/rev=canary",
                false,
                "Pod has istio.io/rev=canary label, preventing injection",
            ),
            (
                "",
                "",
                false,
                "No matching namespace labels (istio.io/rev=default, istio-injection=enabled) or pod labels (sidecar.istio.io/inject=true)",
            ),
        ] {
            assert_eq!(verdict(place, pod), (is_injected, reason.to_owned()), "{place} {pod}");
        }
    }

    #[test]
    fn what_the_injector_itself_leaves_alone_is_told() {
        let enabled = labels("istio-injection=enabled").unwrap();
        let pod = |value: Value| Subject::of(&serde_json::from_value(value).unwrap());
        for (subject, namespace, reason) in [
            (
                pod(json!({"metadata": {}, "spec": {"hostNetwork": true, "containers": []}})),
                "shop",
                "hostNetwork",
            ),
            (pod(json!({"metadata": {"annotations": {INJECT: "false"}}})), "shop", "annotation"),
            (pod(json!({"metadata": {}})), "kube-system", "one of the system's"),
        ] {
            let verdict = Verdict::of(&injector(), &subject, namespace, &enabled);
            assert!(!verdict.is_injected && verdict.reason.contains(reason), "{verdict:?}");
        }
    }

    #[test]
    fn several_injectors_are_an_error() {
        let verdict = |name: &str| Verdict {
            name: name.into(),
            revision: "r".into(),
            is_injected: true,
            reason: "why".into(),
        };
        assert_eq!(
            shown(&[verdict("a"), verdict("bc")], false),
            "WEBHOOK  REVISION  INJECTED  REASON\na        r         ✔         why\nbc       r         ✔         why\n\
             ERROR: multiple webhooks will inject, which can lead to errors\n"
        );
        assert_eq!(shown(&[], false), "ERROR: no Istio injection hooks present.\n");
        let deactivated = json!({"matchLabels": {DEACTIVATED: "never-match"}});
        let webhooks: Vec<Webhook> = serde_json::from_value(
            json!([{"name": "x", "namespaceSelector": deactivated, "objectSelector": deactivated}]),
        )
        .unwrap();
        assert!(unmatched(&webhooks).contains("deactivated"));
    }
}
