//! DestinationRules: which one holds for a client and a service.

mod merge;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Key, Kind, Store};
use mesh::MeshConfig;
use names::Hostname;
use proto::istio::networking::v1alpha3::{DestinationRule, Subset, TrafficPolicy};

use crate::finding::{Finding, Topic};

/// What the rules of one namespace say of one host, put together.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The host, perhaps a wildcard.
    pub host: Hostname,
    /// Namespace and name of the first rule, for `config` metadata.
    pub origin: (String, String),
    /// Policy of the oldest rule that has one.
    pub policy: Option<TrafficPolicy>,
    /// Subsets of all rules; the first of a name counts.
    pub subsets: Vec<Subset>,
    /// Labels of the clients that it is for; `None` for all. One that selects
    /// is for clients of its own namespace only.
    pub selector: Option<BTreeMap<String, String>>,
    /// As written: namespaces, `*`, `.`; empty when it does not say.
    export_to: BTreeSet<String>,
}

impl Rule {
    /// The subset of that name.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    fn is_exported_to(&self, namespace: &str) -> bool {
        self.export_to.is_empty() || self.export_to.contains("*") || self.export_to.contains(namespace)
    }
}

/// Rules by host.
#[derive(Debug, Default)]
struct Pool {
    rules: BTreeMap<Hostname, Vec<Arc<Rule>>>,
    /// Lengths of what follows the `*` of wildcard hosts, the longest first.
    wildcards: Vec<usize>,
}

impl Pool {
    fn new(rules: BTreeMap<Hostname, Vec<Rule>>) -> Self {
        let lengths: BTreeSet<Reverse<usize>> = rules
            .keys()
            .filter(|host| host.is_wildcard())
            .map(|host| Reverse(host.as_str().len() - 1))
            .collect();
        Self {
            rules: rules
                .into_iter()
                .map(|(host, rules)| (host, rules.into_iter().map(Arc::new).collect()))
                .collect(),
            wildcards: lengths.into_iter().map(|Reverse(length)| length).collect(),
        }
    }

    /// The rules of the host that fits best: itself before wildcards, long
    /// wildcards before short ones.
    fn best(&self, host: &Hostname) -> &[Arc<Rule>] {
        if let Some(rules) = self.rules.get(host) {
            return rules;
        }
        let text = if host.is_wildcard() { &host.as_str()[1..] } else { host.as_str() };
        let mut wildcard = String::with_capacity(text.len() + 1);
        for length in &self.wildcards {
            let Some(end) = text.len().checked_sub(*length).and_then(|start| text.get(start..)) else {
                continue;
            };
            wildcard.clear();
            wildcard.push('*');
            wildcard.push_str(end);
            if let Some(rules) = self.rules.get(wildcard.as_str()) {
                return rules;
            }
        }
        &[]
    }
}

/// Rules by namespace.
#[derive(Debug, Default)]
pub struct Index {
    /// For clients of the rule's own namespace.
    own: BTreeMap<String, Pool>,
    /// For clients of other namespaces.
    exported: BTreeMap<String, Pool>,
    /// Those of the root namespace that are for its own clients only.
    root_private: Pool,
    root_namespace: String,
    /// Subsets that are left out since an older rule has one of that name, by host.
    duplicates: BTreeMap<Hostname, Duplicate>,
}

/// A subset that is left out.
#[derive(Clone, Debug)]
struct Duplicate {
    subset: String,
    /// Namespace and name of its rule.
    rule: (String, String),
}

impl Index {
    /// Indexes the rules of a store.
    #[must_use]
    pub fn build(store: &Store, mesh: &MeshConfig, domain: &str) -> Self {
        let mut own: BTreeMap<String, BTreeMap<Hostname, Vec<Rule>>> = BTreeMap::new();
        let mut exported = own.clone();
        let mut root_private = BTreeMap::new();
        let mut duplicates = BTreeMap::new();
        let default_is_private = is_private_by_default(mesh);
        // Those that select clients come first, so that others add to them.
        let all = || store.by_age::<DestinationRule>();
        let selecting = all().into_iter().filter(|(_, rule)| rule.workload_selector.is_some());
        let general = all().into_iter().filter(|(_, rule)| rule.workload_selector.is_none());
        for (object, spec) in selecting.chain(general) {
            let namespace = &object.meta.namespace;
            let selector = spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone());
            let export_to = match &selector {
                Some(_) => BTreeSet::from([".".to_owned()]),
                None => spec.export_to.iter().cloned().collect(),
            };
            let rule = Rule {
                host: Hostname::resolve(&spec.host, namespace, domain),
                origin: (namespace.clone(), object.meta.name.clone()),
                policy: spec.traffic_policy.clone(),
                subsets: unique(&spec.subsets),
                selector,
                export_to,
            };
            let names = |text: &str| rule.export_to.contains(text);
            let is_private = match rule.export_to.len() {
                0 => default_is_private,
                1 => names(".") || names(namespace),
                _ => false,
            };
            if rule.export_to.is_empty() || names("*") || names(".") || names(namespace) {
                merge::add(own.entry(namespace.clone()).or_default(), &rule, &mut duplicates);
            }
            if !is_private {
                merge::add(exported.entry(namespace.clone()).or_default(), &rule, &mut duplicates);
            } else if *namespace == mesh.root_namespace {
                merge::add(&mut root_private, &rule, &mut duplicates);
            }
        }
        let pools = |rules: BTreeMap<String, BTreeMap<Hostname, Vec<Rule>>>| {
            rules.into_iter().map(|(namespace, rules)| (namespace, Pool::new(rules))).collect()
        };
        Self {
            own: pools(own),
            exported: pools(exported),
            root_private: Pool::new(root_private),
            root_namespace: mesh.root_namespace.clone(),
            duplicates,
        }
    }

    /// Subsets that are left out.
    pub(crate) fn duplicates(&self) -> impl Iterator<Item = Finding> {
        self.duplicates.iter().map(|(host, Duplicate { subset, rule: (namespace, name) })| Finding {
            topic: Topic::DuplicateSubset,
            key: host.to_string(),
            message: format!(
                "an older DestinationRule for {host} has a subset {subset:?}: this one has no effect; rename or \
                 remove it"
            ),
            proxy: String::new(),
            object: Some(Key {
                kind: Kind::DestinationRule,
                namespace: namespace.as_str().into(),
                name: name.as_str().into(),
            }),
        })
    }

    /// The rule that holds for clients of a namespace whatever their labels.
    #[must_use]
    pub fn find(&self, client: &str, host: &Hostname, service_namespace: &str) -> Option<&Arc<Rule>> {
        self.candidates(client, host, service_namespace).general(client)
    }

    /// The rule that holds for a client of a namespace with these labels: one
    /// that selects it before one for all.
    #[must_use]
    pub fn select(
        &self,
        client: &str,
        labels: &BTreeMap<String, String>,
        host: &Hostname,
        service_namespace: &str,
    ) -> Option<&Arc<Rule>> {
        let selects = |rule: &&Arc<Rule>| {
            rule.origin.0 == client
                && rule.selector.as_ref().is_some_and(|selector| config::matches(selector, labels))
        };
        let candidates = self.candidates(client, host, service_namespace);
        candidates.rules.iter().find(selects).or_else(|| candidates.general(client))
    }

    /// Rules for a client: its namespace is asked first, then the service's,
    /// then the root namespace; the first that says anything of the host
    /// decides. Rules of the root namespace would hide all others from its own
    /// gateways, so there only private ones go first.
    fn candidates(&self, client: &str, host: &Hostname, service_namespace: &str) -> Candidates<'_> {
        let own = if client == self.root_namespace {
            self.root_private.best(host)
        } else {
            self.own.get(client).map_or(&[][..], |pool| pool.best(host))
        };
        if !own.is_empty() {
            return Candidates { rules: own, is_own: true };
        }
        let exported = |namespace: &str| {
            let rules = self.exported.get(namespace).map_or(&[][..], |pool| pool.best(host));
            rules.iter().any(|rule| rule.is_exported_to(client)).then_some(rules)
        };
        let rules = exported(service_namespace).or_else(|| exported(&self.root_namespace));
        Candidates { rules: rules.unwrap_or_default(), is_own: false }
    }
}

/// Rules of one namespace for one host.
#[derive(Clone, Copy)]
struct Candidates<'a> {
    rules: &'a [Arc<Rule>],
    /// Whether the namespace is that of the client, where all rules hold.
    is_own: bool,
}

impl<'a> Candidates<'a> {
    /// The one without a selector; the last when they are for different namespaces.
    fn general(self, client: &str) -> Option<&'a Arc<Rule>> {
        let holds = |rule: &&Arc<Rule>| self.is_own || rule.is_exported_to(client);
        self.rules.iter().filter(holds).rfind(|rule| rule.selector.is_none())
    }
}

/// Whether rules without `exportTo` are for clients of their own namespace
/// alone. Names of namespaces in the mesh's default keep nobody out.
pub(crate) fn is_private_by_default(mesh: &MeshConfig) -> bool {
    mesh.default_destination_rule_export_to.iter().any(|export| export == ".")
}

/// The subsets without later ones of the same name.
fn unique(subsets: &[Subset]) -> Vec<Subset> {
    let mut names = BTreeSet::new();
    subsets.iter().filter(|subset| names.insert(subset.name.as_str())).cloned().collect()
}
