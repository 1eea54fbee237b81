//! Telemetry: what proxies tell of requests, and whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Key, Object, Problem, Severity, Store};
use mesh::{MeshConfig, extension_provider};
use names::Hostname;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::Provider;
use proto::istio::telemetry::v1alpha1::{AccessLogging, Metrics, Telemetry, Tracing};
use proto::istio::r#type::v1beta1::PolicyTargetReference;

use super::Snapshot;
use super::attach::Workload;
use super::grpc_stats;

/// One object.
#[derive(Debug)]
struct Entry {
    /// Which one of the index it is.
    id: usize,
    namespace: String,
    selector: Option<BTreeMap<String, String>>,
    targets: Vec<PolicyTargetReference>,
    access_logging: Vec<AccessLogging>,
    tracing: Vec<Tracing>,
    metrics: Vec<Metrics>,
    names_grpc_stats: bool,
}

impl Entry {
    fn new(id: usize, namespace: &str, spec: &Telemetry) -> Self {
        let mut targets = spec.target_refs.clone();
        if targets.is_empty() {
            targets.extend(spec.target_ref.clone());
        }
        Self {
            id,
            namespace: namespace.into(),
            selector: spec.selector.as_ref().map(|selector| selector.match_labels.clone()),
            targets,
            access_logging: spec.access_logging.clone(),
            tracing: spec.tracing.clone(),
            metrics: spec.metrics.clone(),
            names_grpc_stats: grpc_stats::is_named_in(spec),
        }
    }

    fn is_for_all(&self) -> bool {
        self.targets.is_empty() && self.selector.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

/// Objects by namespace, the oldest first.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<String, Vec<Arc<Entry>>>,
    root_namespace: String,
}

/// What holds for one workload, from the root namespace down to its own.
#[derive(Clone, Debug, Default)]
pub struct Applied<'a> {
    /// Items on access logs, level by level.
    pub access_logging: Vec<&'a [AccessLogging]>,
    /// Items on tracing.
    pub tracing: Vec<&'a Tracing>,
    /// Items on metrics.
    pub metrics: Vec<&'a Metrics>,
    /// Which objects of the index say something of metrics.
    pub metrics_of: Vec<usize>,
    /// Whether an expression reads what the filter `grpc_stats` leaves.
    pub names_grpc_stats: bool,
}

impl Index {
    /// Indexes the objects of a store.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str) -> Self {
        let mut namespaces: BTreeMap<String, Vec<Arc<Entry>>> = BTreeMap::new();
        for (id, (object, spec)) in store.by_age::<Telemetry>().into_iter().enumerate() {
            let namespace = &object.meta.namespace;
            namespaces.entry(namespace.clone()).or_default().push(Arc::new(Entry::new(id, namespace, spec)));
        }
        Self { namespaces, root_namespace: root_namespace.into() }
    }

    fn of_namespace(&self, namespace: &str) -> &[Arc<Entry>] {
        self.namespaces.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// What holds for a workload: the oldest object for all workloads of the
    /// root namespace, that of its own one, then those that select it.
    #[must_use]
    pub fn applied(&self, workload: Workload<'_>) -> Applied<'_> {
        let for_all = |namespace: &str| self.of_namespace(namespace).iter().find(|entry| entry.is_for_all());
        let mut entries: Vec<&Arc<Entry>> = for_all(&self.root_namespace).into_iter().collect();
        if workload.namespace != self.root_namespace {
            entries.extend(for_all(workload.namespace));
        }
        entries.extend(self.of_namespace(workload.namespace).iter().filter(|entry| {
            !entry.is_for_all()
                && workload.is_selected(&entry.namespace, entry.selector.as_ref(), &entry.targets)
        }));
        let mut applied = Applied::default();
        for entry in entries {
            if !entry.access_logging.is_empty() {
                applied.access_logging.push(&entry.access_logging);
            }
            applied.tracing.extend(&entry.tracing);
            applied.names_grpc_stats |= entry.names_grpc_stats;
            if !entry.metrics.is_empty() {
                applied.metrics.extend(&entry.metrics);
                applied.metrics_of.push(entry.id);
            }
        }
        applied
    }
}

/// Why a provider's service has no cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such service.
    #[error("there is no service {0}")]
    Unknown(String),
    /// Several namespaces have one.
    #[error("several namespaces have a service {0}: write NAMESPACE/{0}")]
    Ambiguous(String),
}

/// The host of a provider's service, `HOST` or `NAMESPACE/HOST`.
///
/// # Errors
/// When there is none, or the namespace is needed to tell which.
pub fn lookup(snapshot: &Snapshot, service: &str) -> Result<Hostname, LookupError> {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, service),
    };
    let wanted = Hostname::new(host);
    let found: BTreeSet<&str> = snapshot
        .directory
        .named(&wanted)
        .iter()
        .map(|service| service.namespace.as_str())
        .filter(|own| namespace.is_none_or(|wanted| wanted == *own))
        .collect();
    match found.len() {
        0 => Err(LookupError::Unknown(service.into())),
        1 => Ok(wanted),
        _ => Err(LookupError::Ambiguous(host.into())),
    }
}

/// What a provider is named for.
#[derive(Clone, Copy)]
enum Use {
    AccessLog,
    Tracing,
    Metrics,
}

impl Use {
    fn fits(self, provider: &Provider) -> bool {
        match self {
            Self::AccessLog => matches!(
                provider,
                Provider::EnvoyFileAccessLog(_)
                    | Provider::EnvoyHttpAls(_)
                    | Provider::EnvoyTcpAls(_)
                    | Provider::EnvoyOtelAls(_)
            ),
            Self::Tracing => matches!(
                provider,
                Provider::Zipkin(_)
                    | Provider::Datadog(_)
                    | Provider::Opentelemetry(_)
                    | Provider::Skywalking(_)
            ),
            Self::Metrics => matches!(provider, Provider::Prometheus(_)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccessLog => "access logs",
            Self::Tracing => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// Providers that objects name and that cannot be used.
#[must_use]
pub fn dangling(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    store.all::<Telemetry>().flat_map(|(object, spec)| dangling_in(snapshot, object, spec)).collect()
}

/// The same for one Telemetry, which need not be in the store.
pub(super) fn dangling_in(snapshot: &Snapshot, object: &Object, spec: &Telemetry) -> Vec<Problem> {
    let mut problems = Vec::new();
    let blocks = spec
        .access_logging
        .iter()
        .map(|item| ("accessLogging", &item.providers, Use::AccessLog))
        .enumerate()
        .chain(spec.tracing.iter().map(|item| ("tracing", &item.providers, Use::Tracing)).enumerate())
        .chain(spec.metrics.iter().map(|item| ("metrics", &item.providers, Use::Metrics)).enumerate());
    for (item, (block, providers, usage)) in blocks {
        for (index, provider) in providers.iter().enumerate() {
            let field = format!("spec.{block}[{item}].providers[{index}].name");
            if let Some(message) = unusable(snapshot, &provider.name, usage) {
                problems.push(warning(&object.key, object.position.clone(), field, message));
            }
        }
    }
    problems
}

fn unusable(snapshot: &Snapshot, name: &str, usage: Use) -> Option<String> {
    let mesh: &MeshConfig = &snapshot.mesh;
    let Some(provider) = extension_provider::find(&mesh.extension_providers, name) else {
        return Some(format!("{name:?} is not among extensionProviders of the mesh configuration"));
    };
    let provider = provider.provider.as_ref()?;
    if !usage.fits(provider) {
        return Some(format!("the provider {name:?} does not take {} of Envoy", usage.name()));
    }
    let (service, _) = extension_provider::service(provider)?;
    lookup(snapshot, service).err().map(|error| format!("the provider {name:?} cannot be reached: {error}"))
}

fn warning(key: &Key, position: config::Position, field: String, message: String) -> Problem {
    Problem { severity: Severity::Warning, object: Some(key.clone()), position, field, message }
}
