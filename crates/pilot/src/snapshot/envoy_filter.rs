//! EnvoyFilters: patches of what proxies get, each read once.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Object, Problem, Severity, Store, patch};
use prost::bytes::Bytes;
use proto::istio::networking::v1alpha3::EnvoyFilter;
use proto::istio::networking::v1alpha3::envoy_filter::envoy_config_object_match::ObjectTypes;
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, PatchContext};
use regex::{Regex, RegexBuilder};

use super::attach::Workload;
use super::grpc_stats;

/// Longer expressions are not compiled.
const MAX_EXPRESSION: usize = 1024;
/// What a compiled expression may take.
const MAX_COMPILED: usize = 1 << 20;

/// Versions of proxies that a patch is for.
#[derive(Clone, Debug)]
enum Version {
    Any,
    None,
    Matching(Regex),
}

/// The value of a patch, encoded.
#[derive(Clone, Debug)]
pub struct Value {
    /// As it stands by itself.
    pub encoded: Bytes,
    /// As it is put behind what it is merged into.
    pub merging: Bytes,
}

/// A patch.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What is patched.
    pub apply_to: ApplyTo,
    /// What is done.
    pub operation: Operation,
    /// In which configuration; `Any` is in all.
    pub context: PatchContext,
    /// Which piece of it; `None` is every one.
    pub matcher: Option<ObjectTypes>,
    /// What is put there; not needed to remove.
    pub value: Option<Value>,
    version: Version,
    metadata: BTreeMap<String, String>,
}

impl Patch {
    /// Whether it is for a proxy of that version, which says that of itself.
    pub(crate) fn is_for<'a>(&self, version: &str, says: impl Fn(&str) -> &'a str) -> bool {
        let fits = match &self.version {
            Version::Any => true,
            Version::None => false,
            // A proxy that names no version fits no expression, not even `.*`.
            Version::Matching(expression) => !version.is_empty() && expression.is_match(version),
        };
        fits && self.metadata.iter().all(|(key, value)| says(key) == value)
    }
}

/// An object.
#[derive(Debug)]
struct Filter {
    source: EnvoyFilter,
    namespace: String,
    name: String,
    created: Option<String>,
    patches: Vec<Patch>,
    problems: Vec<(String, String)>,
    names_grpc_stats: bool,
}

/// Objects by namespace, in the order in which they are applied.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<String, Vec<Arc<Filter>>>,
    root_namespace: String,
}

impl Index {
    /// Indexes the objects of a store; what is as in the index before is not
    /// read again.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str, before: Option<&Self>) -> Self {
        let mut namespaces: BTreeMap<String, Vec<Arc<Filter>>> = BTreeMap::new();
        for (object, spec) in store.all::<EnvoyFilter>() {
            let known = before.and_then(|before| before.namespaces.get(&object.meta.namespace));
            let known = known.into_iter().flatten().find(|known| {
                known.name == object.meta.name
                    && known.created == object.meta.creation_timestamp
                    && known.source == *spec
            });
            let filter = known.cloned().unwrap_or_else(|| Arc::new(Filter::read(object, spec)));
            namespaces.entry(object.meta.namespace.clone()).or_default().push(filter);
        }
        for filters in namespaces.values_mut() {
            filters.sort_by(|a, b| a.order(root_namespace).cmp(&b.order(root_namespace)));
        }
        Self { namespaces, root_namespace: root_namespace.into() }
    }

    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Patches of the objects for a workload, in the order in which they are applied.
    pub(crate) fn select<'a>(&'a self, workload: Workload<'_>) -> impl Iterator<Item = &'a Patch> + use<'a> {
        let mut filters: Vec<&Filter> = self.of(workload).collect();
        let root = &self.root_namespace;
        filters.sort_by(|a, b| a.order(root).cmp(&b.order(root)));
        filters.into_iter().flat_map(|filter| &filter.patches)
    }

    /// Whether one of the objects for a workload names the filter `grpc_stats`.
    pub(crate) fn names_grpc_stats(&self, workload: Workload<'_>) -> bool {
        self.of(workload).any(|filter| filter.names_grpc_stats)
    }

    /// The objects for a workload.
    fn of<'a: 'w, 'w>(&'a self, workload: Workload<'w>) -> impl Iterator<Item = &'a Filter> + use<'a, 'w> {
        let root = (workload.namespace != self.root_namespace).then_some(self.root_namespace.as_str());
        std::iter::once(workload.namespace)
            .chain(root)
            .filter_map(|namespace| self.namespaces.get(namespace))
            .flatten()
            .map(|filter| &**filter)
            .filter(move |filter| {
                let selector = filter.source.workload_selector.as_ref().map(|selector| &selector.labels);
                workload.is_selected(&filter.namespace, selector, &filter.source.target_refs)
            })
    }

    /// Patches that have no effect, though their object is in force.
    #[must_use]
    pub fn problems(&self, store: &Store) -> Vec<Problem> {
        let mut problems = Vec::new();
        for filter in self.namespaces.values().flatten() {
            let Some((object, _)) = store.get::<EnvoyFilter>(&filter.namespace, &filter.name) else {
                continue;
            };
            problems.extend(filter.problems.iter().map(|(field, message)| Problem {
                severity: Severity::Warning,
                object: Some(object.key.clone()),
                position: object.position.clone(),
                field: field.clone(),
                message: message.clone(),
            }));
        }
        problems
    }
}

impl Filter {
    fn read(object: &Object, spec: &EnvoyFilter) -> Self {
        let mut filter = Self {
            source: spec.clone(),
            namespace: object.meta.namespace.clone(),
            name: object.meta.name.clone(),
            created: object.meta.creation_timestamp.clone(),
            patches: Vec::new(),
            problems: Vec::new(),
            names_grpc_stats: grpc_stats::is_named_in(spec),
        };
        for (index, item) in spec.config_patches.iter().enumerate() {
            match read(item) {
                Ok(patch) => filter.patches.extend(patch),
                Err(patch::Error { field, message }) => {
                    let dot = if field.is_empty() { "" } else { "." };
                    let field = format!("spec.configPatches[{index}].patch.value{dot}{field}");
                    filter.problems.push((field, format!("the patch is left out: {message}")));
                }
            }
        }
        filter
    }

    fn order<'a>(&'a self, root: &str) -> impl Ord + use<'a> {
        let name = (self.name.as_str(), self.namespace.as_str());
        (self.source.priority, self.namespace != root, self.created.as_deref(), name)
    }
}

/// `None` for what can never have an effect here.
fn read(item: &EnvoyConfigObjectPatch) -> Result<Option<Patch>, patch::Error> {
    let (apply_to, Some(change)) = (item.apply_to(), &item.patch) else { return Ok(None) };
    let operation = match change.operation() {
        Operation::Invalid => return Ok(None),
        // Where order means nothing, inserting is adding.
        Operation::InsertBefore | Operation::InsertAfter | Operation::InsertFirst
            if !matches!(
                apply_to,
                ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::HttpRoute | ApplyTo::ListenerFilter
            ) =>
        {
            Operation::Add
        }
        operation => operation,
    };
    if matches!(apply_to, ApplyTo::Invalid | ApplyTo::Bootstrap) {
        return Ok(None);
    }
    let matcher = item.r#match.as_ref();
    let proxy = matcher.and_then(|matcher| matcher.proxy.as_ref());
    let value = match patch::read(apply_to, change)? {
        None if operation != Operation::Remove => return Ok(None),
        // Envoy would refuse the whole listener for a filter without a type.
        Some(_) if !has_type(item, apply_to, operation) => {
            let message = "a filter needs typed_config".to_owned();
            return Err(patch::Error { field: "typed_config".into(), message });
        }
        value => value.map(|value| Value { encoded: value.encoded.into(), merging: value.merging.into() }),
    };
    Ok(Some(Patch {
        apply_to,
        operation,
        context: matcher.map_or(PatchContext::Any, |matcher| matcher.context()),
        matcher: matcher.and_then(|matcher| matcher.object_types.clone()),
        value,
        version: proxy.map_or(Version::Any, |proxy| version(&proxy.proxy_version)),
        metadata: proxy.map(|proxy| proxy.metadata.clone()).unwrap_or_default(),
    }))
}

fn has_type(item: &EnvoyConfigObjectPatch, apply_to: ApplyTo, operation: Operation) -> bool {
    let is_filter =
        matches!(apply_to, ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::ListenerFilter);
    let is_part = matches!(operation, Operation::Merge | Operation::MergeAndReplaceList | Operation::Remove);
    let value = item.patch.as_ref().and_then(|patch| patch.value.as_ref());
    !is_filter
        || is_part
        || value.is_some_and(|value| {
            ["typed_config", "typedConfig", "config_discovery", "configDiscovery"]
                .iter()
                .any(|name| value.fields.contains_key(*name))
        })
}

fn version(expression: &str) -> Version {
    if expression.is_empty() {
        return Version::Any;
    }
    if expression.len() > MAX_EXPRESSION {
        return Version::None;
    }
    // A wrong one is refused by validation; unseen by it, it fits nothing.
    RegexBuilder::new(expression).size_limit(MAX_COMPILED).build().map_or(Version::None, Version::Matching)
}
