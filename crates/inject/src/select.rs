//! Which pods the API server sends to the webhook: the rules of the
//! `MutatingWebhookConfiguration` of a revision.

use std::collections::BTreeMap;

use names::label;
use serde_json::{Value, json};

use crate::settings::{Requirement, Selector};

/// End of the names of all webhooks that inject.
pub const DOMAIN: &str = "sidecar-injector.istio.io";
/// Label by which Kubernetes names a namespace.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// One webhook of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// Namespaces that it is for.
    pub namespaces: Selector,
    /// Pods that it is for.
    pub pods: Selector,
}

fn is_in(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: "In".into(), values: vec![value.into()] }
}

fn is_not(key: &str, values: &[&str]) -> Requirement {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Requirement { key: key.into(), operator: "NotIn".into(), values }
}

fn is_absent(key: &str) -> Requirement {
    Requirement { key: key.into(), operator: "DoesNotExist".into(), values: Vec::new() }
}

/// The webhooks of a revision or of a revision tag. Only the default one is for
/// the labels that name no revision; `everywhere` is the value
/// `sidecarInjectorWebhook.enableNamespacesByDefault`.
#[must_use]
pub fn webhooks(revision: &str, everywhere: bool) -> Vec<Webhook> {
    let is_default = revision.is_empty() || revision == "default";
    let revision = if is_default { "default" } else { revision };
    let webhook = |prefix: &str, namespaces: Vec<Requirement>, pods: Vec<Requirement>| Webhook {
        name: format!("{prefix}.{DOMAIN}"),
        namespaces: Selector { match_expressions: namespaces, ..Selector::default() },
        pods: Selector { match_expressions: pods, ..Selector::default() },
    };
    let not_refused = || is_not(label::INJECT, &["false"]);
    let mut all = vec![
        webhook(
            "rev.namespace",
            vec![is_in(label::REVISION, revision), is_absent(label::INJECTION)],
            vec![not_refused()],
        ),
        webhook(
            "rev.object",
            vec![is_absent(label::REVISION), is_absent(label::INJECTION)],
            vec![not_refused(), is_in(label::REVISION, revision)],
        ),
    ];
    if !is_default {
        return all;
    }
    all.push(webhook("namespace", vec![is_in(label::INJECTION, "enabled")], vec![not_refused()]));
    all.push(webhook(
        "object",
        vec![is_absent(label::INJECTION), is_absent(label::REVISION)],
        vec![is_in(label::INJECT, "true"), is_absent(label::REVISION)],
    ));
    if everywhere {
        let own = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
        all.push(webhook(
            "auto",
            vec![is_absent(label::INJECTION), is_absent(label::REVISION), is_not(NAMESPACE, &own)],
            vec![is_absent(label::INJECT), is_absent(label::REVISION)],
        ));
    }
    all
}

impl Webhook {
    /// Whether the API server calls it for a pod.
    #[must_use]
    pub fn fits(&self, namespace: &BTreeMap<String, String>, pod: &BTreeMap<String, String>) -> bool {
        self.namespaces.matches(namespace) && self.pods.matches(pod)
    }

    /// It as an entry of the configuration: `service` is the namespace and name
    /// of istiod's service.
    #[must_use]
    pub fn to_json(&self, service: (&str, &str)) -> Value {
        let (namespace, name) = service;
        json!({
            "name": self.name,
            "clientConfig": {"service": {"namespace": namespace, "name": name, "path": "/inject", "port": 443}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            // Another webhook may change what was injected; doing it again is harmless.
            "reinvocationPolicy": "IfNeeded",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchExpressions": expressions(&self.namespaces)},
            "objectSelector": {"matchExpressions": expressions(&self.pods)},
        })
    }
}

fn expressions(selector: &Selector) -> Vec<Value> {
    let all = selector.match_expressions.iter().map(|rule| {
        let mut value = json!({"key": rule.key, "operator": rule.operator});
        if !rule.values.is_empty() {
            value["values"] = json!(rule.values);
        }
        value
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(revision: &str, namespace: &[(&str, &str)], pod: &[(&str, &str)]) -> Vec<String> {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (namespace, pod) = (labels(namespace), labels(pod));
        let all = webhooks(revision, true).into_iter().filter(|webhook| webhook.fits(&namespace, &pod));
        all.map(|webhook| webhook.name.replace(".sidecar-injector.istio.io", "")).collect()
    }

    #[test]
    fn each_pod_is_selected_once() {
        let (inject, rev) = ("sidecar.istio.io/inject", "istio.io/rev");
        assert_eq!(selected("", &[("istio-injection", "enabled")], &[]), ["namespace"]);
        assert_eq!(selected("", &[("istio-injection", "disabled")], &[(inject, "true")]), [""; 0]);
        assert_eq!(selected("", &[], &[(inject, "true")]), ["object"]);
        assert_eq!(selected("", &[], &[]), ["auto"]);
        assert_eq!(selected("", &[(NAMESPACE, "kube-system")], &[]), [""; 0]);
        assert_eq!(selected("", &[(rev, "default")], &[]), ["rev.namespace"]);
        assert_eq!(selected("", &[(rev, "canary")], &[]), [""; 0]);
        assert_eq!(selected("canary", &[(rev, "canary")], &[(inject, "false")]), [""; 0]);
        assert_eq!(selected("canary", &[], &[(rev, "canary")]), ["rev.object"]);
        assert_eq!(selected("canary", &[("istio-injection", "enabled")], &[]), [""; 0]);
    }

    #[test]
    fn a_changed_pod_is_seen_again() {
        let webhook = webhooks("", false)[0].to_json(("istio-system", "istiod"));
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["clientConfig"]["service"]["path"], "/inject");
    }
}
