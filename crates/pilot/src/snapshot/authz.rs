//! Who may do what, by namespace (AuthorizationPolicy).

mod problem;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use config::{Object, Store};
use proto::istio::security::v1beta1::AuthorizationPolicy;
use proto::istio::security::v1beta1::authorization_policy::{Action as ApiAction, ActionDetail};

use super::attach::Workload;
use crate::rbac::Rules;

pub(super) use problem::{problems, undecided};

/// Annotation of a policy whose decision is only told, not carried out.
const DRY_RUN: &str = "istio.io/dry-run";

/// What happens to requests that a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// They may pass; others may not.
    Allow,
    /// They may not pass.
    Deny,
    /// They are marked for an audit.
    Audit,
    /// A server outside decides.
    Custom,
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    /// Number that no other policy of the index has.
    pub(crate) id: usize,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Whether its decision is only told.
    pub is_dry_run: bool,
    /// What it says.
    pub spec: AuthorizationPolicy,
    /// The trust domain of the mesh and its aliases.
    pub(crate) trust_domains: Arc<[String]>,
    translated: OnceLock<Rules>,
}

impl Policy {
    fn new(id: usize, object: &Object, spec: &AuthorizationPolicy, trust_domains: Arc<[String]>) -> Self {
        let action = match spec.action() {
            ApiAction::Allow => Action::Allow,
            ApiAction::Deny => Action::Deny,
            ApiAction::Audit => Action::Audit,
            ApiAction::Custom => Action::Custom,
        };
        let dry_run = object.meta.annotations.get(DRY_RUN).map_or("", String::as_str);
        Self {
            id,
            namespace: object.meta.namespace.clone(),
            name: object.meta.name.clone(),
            action,
            is_dry_run: is_true(dry_run),
            spec: spec.clone(),
            trust_domains,
            translated: OnceLock::new(),
        }
    }

    /// Who decides on what the policy matches; empty unless it is CUSTOM.
    #[must_use]
    pub fn provider(&self) -> &str {
        match &self.spec.action_detail {
            Some(ActionDetail::Provider(provider)) => &provider.name,
            None => "",
        }
    }

    /// Its rules in Envoy's form, translated once.
    pub(crate) fn rules(&self) -> &Rules {
        self.translated.get_or_init(|| Rules::new(self))
    }

    fn is_for(&self, workload: Workload<'_>) -> bool {
        let AuthorizationPolicy { selector, target_ref, target_refs, .. } = &self.spec;
        workload.is_of_policy(&self.namespace, selector.as_ref(), target_refs, target_ref.as_slice())
    }
}

/// What Go reads as true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// All policies.
#[derive(Debug, Default)]
pub struct Index {
    root_namespace: String,
    namespaces: BTreeMap<String, Vec<Arc<Policy>>>,
}

impl Index {
    /// Indexes the policies of a store.
    #[must_use]
    pub fn build(store: &Store, mesh: &mesh::MeshConfig) -> Self {
        let trust_domains: Arc<[String]> = std::iter::once(mesh.trust_domain().to_owned())
            .chain(mesh.trust_domain_aliases.iter().cloned())
            .collect();
        let mut index = Self { root_namespace: mesh.root_namespace.clone(), ..Self::default() };
        for (id, (object, spec)) in store.by_age::<AuthorizationPolicy>().into_iter().enumerate() {
            let policy = Arc::new(Policy::new(id, object, spec, trust_domains.clone()));
            index.namespaces.entry(object.meta.namespace.clone()).or_default().push(policy);
        }
        index
    }

    /// Policies for a workload: those of the root namespace, then those of its
    /// own, the oldest first.
    #[must_use]
    pub fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<&Arc<Policy>> {
        let own = (namespace != self.root_namespace).then_some(namespace);
        let workload = Workload { namespace, labels };
        std::iter::once(self.root_namespace.as_str())
            .chain(own)
            .filter_map(|namespace| self.namespaces.get(namespace))
            .flatten()
            .filter(|policy| policy.is_for(workload))
            .collect()
    }

    /// All of them.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.namespaces.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;

    #[test]
    fn a_workload_has_those_of_the_root_namespace_and_its_own() {
        let mut store = Store::default();
        for (namespace, name, spec) in [
            ("a", "own", "{}"),
            ("istio-system", "root", "{action: DENY, rules: [{}]}"),
            ("b", "foreign", "{}"),
            ("a", "other", "{selector: {matchLabels: {app: other}}}"),
        ] {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: {name}, namespace: {namespace}, annotations: {{istio.io/dry-run: 'True'}}}}\n\
                 spec: {spec}\n"
            );
            for object in yaml::read("a.yaml", &text).objects {
                store.apply(object.into());
            }
        }
        let index = Index::build(&store, &mesh::MeshConfig::default());
        let names = |namespace: &str, app: &str| -> Vec<String> {
            let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
            index.select(namespace, &labels).iter().map(|policy| policy.name.clone()).collect()
        };
        assert_eq!(names("a", "x"), ["root", "own"]);
        assert_eq!(names("a", "other"), ["root", "other", "own"]);
        assert_eq!(names("istio-system", "x"), ["root"]);
        assert!(index.policies().all(|policy| policy.is_dry_run));
    }
}
