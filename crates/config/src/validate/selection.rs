//! Which workloads an object is for: a selector or references to gateways.

use std::collections::BTreeMap;

use proto::istio::r#type::v1beta1::{PolicyTargetReference, WorkloadSelector};

use super::Checker;

/// Group and kind of objects that may be referred to.
const TARGETS: [(&str, &str); 4] = [
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

impl Checker {
    /// What an object applies to: at most one of `selector`, `targetRef` and `targetRefs`.
    pub fn selection(
        &mut self,
        selector: Option<&WorkloadSelector>,
        target: Option<&PolicyTargetReference>,
        targets: &[PolicyTargetReference],
    ) {
        let given = [selector.is_some(), target.is_some(), !targets.is_empty()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            let field = if targets.is_empty() { "targetRef" } else { "targetRefs" };
            self.error(field, "excludes a selector and another kind of reference: leave one of them");
        }
        if let Some(selector) = selector {
            self.selector("selector.matchLabels", &selector.match_labels);
        }
        if let Some(target) = target {
            self.target("targetRef", target);
        }
        for (index, target) in targets.iter().enumerate() {
            self.target(&format!("targetRefs[{index}]"), target);
        }
    }

    /// Labels of a selector; none are most likely a mistake.
    pub fn selector(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        if labels.is_empty() {
            self.warn(field, "is empty: the object applies to all workloads of its namespace");
        }
        for (key, value) in labels {
            if key.contains('*') || value.contains('*') {
                self.error(format!("{field}.{key}"), "has a \"*\": selectors know no wildcards");
            } else {
                self.label(&format!("{field}.{key}"), key, value);
            }
        }
    }

    fn target(&mut self, at: &str, target: &PolicyTargetReference) {
        if target.name.is_empty() {
            self.error(format!("{at}.name"), "is missing: name the object that is meant");
        }
        if !target.namespace.is_empty() {
            let message = format!(
                "{:?} must not be set: only objects of the own namespace are meant",
                target.namespace
            );
            self.error(format!("{at}.namespace"), message);
        }
        let group = if target.group == "core" { "" } else { target.group.as_str() };
        if !TARGETS.contains(&(group, target.kind.as_str())) {
            let message = format!(
                "{:?} of group {:?} cannot be meant: expected Gateway or GatewayClass of gateway.networking.k8s.io, Service, or ServiceEntry of networking.istio.io",
                target.kind, target.group
            );
            self.error(format!("{at}.kind"), message);
        } else if target.kind != "Gateway" {
            let message =
                format!("{} is for waypoints only, which this mesh has not: it has no effect", target.kind);
            self.warn(format!("{at}.kind"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    fn worst(check: impl FnOnce(&mut Checker)) -> Option<Severity> {
        let mut checker = Checker::default();
        check(&mut checker);
        checker.findings.iter().map(|finding| finding.severity).max()
    }

    #[test]
    fn an_object_is_selected_in_one_way() {
        let labels = |key: &str, value: &str| WorkloadSelector {
            match_labels: [(key.to_owned(), value.to_owned())].into(),
        };
        let target = |group: &str, kind: &str, name: &str| PolicyTargetReference {
            group: group.into(),
            kind: kind.into(),
            name: name.into(),
            ..PolicyTargetReference::default()
        };
        let gateway = target("gateway.networking.k8s.io", "Gateway", "g");
        let one = labels("app", "a");
        assert_eq!(worst(|checker| checker.selection(None, None, &[])), None);
        assert_eq!(worst(|checker| checker.selection(Some(&one), None, &[])), None);
        assert_eq!(worst(|checker| checker.selection(None, None, std::slice::from_ref(&gateway))), None);
        assert_eq!(
            worst(|checker| checker.selection(Some(&one), Some(&gateway), &[])),
            Some(Severity::Error)
        );
        let empty = WorkloadSelector::default();
        assert_eq!(worst(|checker| checker.selection(Some(&empty), None, &[])), Some(Severity::Warning));
        for (selector, targets) in [
            (Some(labels("app", "*")), vec![]),
            (None, vec![target("gateway.networking.k8s.io", "Gateway", "")]),
            (None, vec![target("", "Pod", "p")]),
        ] {
            let found = worst(|checker| checker.selection(selector.as_ref(), None, &targets));
            assert_eq!(found, Some(Severity::Error), "{selector:?} {targets:?}");
        }
        let service = target("", "Service", "s");
        assert_eq!(worst(|checker| checker.selection(None, Some(&service), &[])), Some(Severity::Warning));
    }
}
