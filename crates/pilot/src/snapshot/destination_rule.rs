//! DestinationRules: which one holds for a client and a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Store;
use mesh::MeshConfig;
use names::Hostname;
use proto::istio::networking::v1alpha3::{DestinationRule, Subset, TrafficPolicy};

use super::visibility::Visibility;

/// What the rules of one namespace say of one host, put together.
#[derive(Debug)]
pub struct Rule {
    /// The host, perhaps a wildcard.
    pub host: Hostname,
    /// Namespace and name of the first rule, for `config` metadata.
    pub origin: (String, String),
    /// Policy of the oldest rule that has one.
    pub policy: Option<TrafficPolicy>,
    /// Subsets of all rules; the first of a name counts.
    pub subsets: Vec<Subset>,
    visibility: Visibility,
}

/// Rules by namespace.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<String, Vec<Arc<Rule>>>,
    root_namespace: String,
}

impl Index {
    /// Indexes the rules of a store.
    #[must_use]
    pub fn build(store: &Store, mesh: &MeshConfig, domain: &str) -> Self {
        let mut namespaces: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for (object, rule) in store.by_age::<DestinationRule>() {
            if rule.workload_selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty()) {
                continue;
            }
            let namespace = &object.meta.namespace;
            let host = Hostname::resolve(&rule.host, namespace, domain);
            let visibility =
                Visibility::new(&rule.export_to, &mesh.default_destination_rule_export_to, namespace);
            let rules = namespaces.entry(namespace.clone()).or_default();
            if let Some(first) =
                rules.iter_mut().find(|first| first.host == host && first.visibility == visibility)
            {
                for subset in &rule.subsets {
                    if !first.subsets.iter().any(|known| known.name == subset.name) {
                        first.subsets.push(subset.clone());
                    }
                }
                if first.policy.is_none() {
                    first.policy.clone_from(&rule.traffic_policy);
                }
                continue;
            }
            rules.push(Rule {
                host,
                origin: (namespace.clone(), object.meta.name.clone()),
                policy: rule.traffic_policy.clone(),
                subsets: rule.subsets.clone(),
                visibility,
            });
        }
        let namespaces = namespaces
            .into_iter()
            .map(|(namespace, rules)| (namespace, rules.into_iter().map(Arc::new).collect()))
            .collect();
        Self { namespaces, root_namespace: mesh.root_namespace.clone() }
    }

    /// The rule that holds for clients of a namespace: the client's namespace
    /// is asked first, then the service's, then the root namespace; the first
    /// that says anything of the host decides.
    #[must_use]
    pub fn find(&self, client: &str, host: &Hostname, service_namespace: &str) -> Option<&Arc<Rule>> {
        if client != self.root_namespace {
            if let Some(rule) = self.best(client, host, |_| true) {
                return Some(rule);
            }
        } else if let Some(rule) = self.best(client, host, |rule| rule.visibility.is_private_to(client)) {
            return Some(rule);
        }
        self.best(service_namespace, host, |rule| rule.visibility.includes(client))
            .or_else(|| self.best(&self.root_namespace, host, |rule| rule.visibility.includes(client)))
    }

    /// The most specific rule of a namespace for a host.
    fn best(&self, namespace: &str, host: &Hostname, fits: impl Fn(&Rule) -> bool) -> Option<&Arc<Rule>> {
        let rules = self.namespaces.get(namespace)?;
        let matching = rules.iter().filter(|rule| rule.host.covers(host) && fits(rule));
        // Exact before wildcard, long before short; the oldest of equals.
        matching.min_by_key(|rule| (rule.host.is_wildcard(), std::cmp::Reverse(rule.host.as_str().len())))
    }
}
