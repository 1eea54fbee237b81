//! Which workloads an object is for: by labels, or by naming a gateway.

use std::collections::BTreeMap;

use proto::istio::r#type::v1beta1::{PolicyTargetReference, WorkloadSelector};

/// Label of the pods of a gateway that a `Gateway` of the Kubernetes Gateway
/// API stands for.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// A workload, as objects select it.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl Workload<'_> {
    /// Whether an object of `namespace` is for the workload. References count
    /// for gateways of the Gateway API alone, and those of their namespace;
    /// an object without any is selected by labels, no labels select all.
    #[must_use]
    pub fn is_selected(
        self,
        namespace: &str,
        selector: Option<&BTreeMap<String, String>>,
        targets: &[PolicyTargetReference],
    ) -> bool {
        if targets.is_empty() {
            return selector.is_none_or(|wanted| config::matches(wanted, self.labels));
        }
        let Some(gateway) = self.labels.get(GATEWAY_NAME) else { return false };
        namespace == self.namespace
            && targets.iter().any(|target| {
                target.group == GATEWAY_GROUP
                    && target.kind == "Gateway"
                    && target.name == *gateway
                    && (target.namespace.is_empty() || target.namespace == self.namespace)
            })
    }

    /// The same of an object's own fields. The older one for a single reference
    /// counts without the newer one.
    #[must_use]
    pub fn is_of_policy(
        self,
        namespace: &str,
        selector: Option<&WorkloadSelector>,
        targets: &[PolicyTargetReference],
        older: &[PolicyTargetReference],
    ) -> bool {
        let targets = if targets.is_empty() { older } else { targets };
        self.is_selected(namespace, selector.map(|selector| &selector.match_labels), targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_select_workloads_and_references_gateways() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let (app, gateway) = (map("app", "a"), map(GATEWAY_NAME, "g"));
        let workload = Workload { namespace: "n", labels: &app };
        assert!(workload.is_selected("n", None, &[]));
        assert!(workload.is_selected("n", Some(&map("app", "a")), &[]));
        assert!(!workload.is_selected("n", Some(&map("app", "b")), &[]));
        let target = |name: &str| PolicyTargetReference {
            group: GATEWAY_GROUP.into(),
            kind: "Gateway".into(),
            name: name.into(),
            ..PolicyTargetReference::default()
        };
        assert!(!workload.is_selected("n", None, &[target("g")]));
        let workload = Workload { namespace: "n", labels: &gateway };
        assert!(workload.is_selected("n", None, &[target("x"), target("g")]));
        assert!(!workload.is_selected("n", None, &[target("x")]));
        assert!(!workload.is_selected("root", None, &[target("g")]));
        assert!(workload.is_selected("root", None, &[]));
    }
}
