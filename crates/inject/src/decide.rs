//! Whether a pod is injected.

use serde_json::Value;

use crate::pod;
use crate::settings::{Policy, Selector, Settings};

/// Namespaces of Kubernetes itself, where nothing is injected.
pub const IGNORED_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// What is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the pod is injected.
    pub is_injected: bool,
    /// Why, for the log.
    pub reason: &'static str,
    /// A value of the user's that says nothing.
    pub warning: Option<String>,
}

/// Decides about a pod in a namespace.
#[must_use]
pub fn decide(settings: &Settings, pod: &Value, namespace: &str) -> Verdict {
    let verdict = |is_injected, reason| Verdict { is_injected, reason, warning: None };
    // Rules of the pod's network would be rules of the whole node.
    if pod["spec"]["hostNetwork"] == true {
        return verdict(false, "it uses the network of its node");
    }
    if IGNORED_NAMESPACES.contains(&namespace) {
        return verdict(false, "its namespace is Kubernetes' own");
    }
    let key = names::label::INJECT;
    let label = pod["metadata"]["labels"][key].as_str();
    let wish = label.or_else(|| pod["metadata"]["annotations"][names::annotation::INJECT].as_str());
    let mut warning = None;
    match wish {
        Some("true") => return verdict(true, "its label or annotation sidecar.istio.io/inject is true"),
        Some("false") => return verdict(false, "its label or annotation sidecar.istio.io/inject is false"),
        None | Some("") => {}
        Some(other) => {
            warning = Some(format!(
                "{key}: {other:?} is neither \"true\" nor \"false\" and counts as not set: correct it"
            ));
        }
    }
    let labels = pod::strings(pod, "labels");
    let fits =
        |all: &[Selector]| all.iter().any(|selector| !selector.is_empty() && selector.matches(&labels));
    let (is_injected, reason) = if fits(&settings.never_inject) {
        (false, "neverInjectSelector fits it")
    } else if fits(&settings.always_inject) {
        (true, "alwaysInjectSelector fits it")
    } else if settings.policy == Policy::Enabled {
        (true, "the policy is enabled")
    } else {
        (false, "the policy is disabled")
    };
    Verdict { is_injected, reason, warning }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(config: &str) -> Settings {
        Settings::read(config, "{}", "").unwrap()
    }

    #[test]
    fn the_label_comes_before_the_annotation_and_both_before_selectors() {
        let settings = settings("policy: disabled\nneverInjectSelector: [{matchLabels: {a: b}}, {}]");
        let is = |labels: Value, annotations: Value| {
            let pod = json!({"metadata": {"labels": labels, "annotations": annotations}});
            decide(&settings, &pod, "x").is_injected
        };
        let inject = |value: &str| json!({"sidecar.istio.io/inject": value});
        assert!(is(inject("true"), inject("false")));
        assert!(!is(inject("false"), inject("true")));
        assert!(is(json!({"a": "b"}), inject("true")));
        assert!(!is(json!({}), json!({})));
    }

    #[test]
    fn selectors_come_before_the_policy() {
        let settings = settings(
            "policy: enabled\nneverInjectSelector: [{matchExpressions: [{key: job, operator: Exists}]}]\n\
             alwaysInjectSelector: [{matchLabels: {job: x}}]",
        );
        let is = |labels: Value| decide(&settings, &json!({"metadata": {"labels": labels}}), "x");
        assert!(!is(json!({"job": "x"})).is_injected);
        assert!(is(json!({})).is_injected);
        assert!(is(json!({"sidecar.istio.io/inject": "yes"})).warning.is_some());
    }

    #[test]
    fn pods_of_nodes_and_of_kubernetes_are_left_alone() {
        let settings = settings("policy: enabled");
        let labels = json!({"sidecar.istio.io/inject": "true"});
        let pod = json!({"metadata": {"labels": labels}, "spec": {"hostNetwork": true}});
        assert!(!decide(&settings, &pod, "x").is_injected);
        assert!(!decide(&settings, &json!({"metadata": {"labels": labels}}), "kube-system").is_injected);
    }
}
