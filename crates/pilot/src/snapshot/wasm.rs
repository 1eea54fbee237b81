//! Extensions that users bring: WasmPlugins and TrafficExtensions.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use config::{Object, Store};
use proto::istio::extensions::v1alpha1::traffic_extension::{ExecutionPhase, FilterConfig};
use proto::istio::extensions::v1alpha1::{
    PluginType, TrafficExtension, TrafficSelector, WasmConfig, WasmPlugin,
};
use proto::istio::r#type::v1beta1::{PolicyTargetReference, WorkloadMode};

use super::attach::Workload;

/// What the names of resources of extensions begin with.
pub const PREFIX: &str = "extensions.istio.io/trafficextension/";
/// What Istio puts behind the name of a WasmPlugin, which it reads as a
/// TrafficExtension; no object can have such a name.
const OF_PLUGIN: &str = "~istio-translated-wasmplugin";
/// Longest script, in bytes.
const MAX_SCRIPT: usize = 65536;

/// What an extension is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Code {
    /// A module.
    Wasm(Box<WasmConfig>),
    /// A script for requests.
    Lua(String),
}

/// An extension.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object, as far as resources bear it.
    pub name: String,
    /// Where it stands among filters.
    pub phase: ExecutionPhase,
    /// What it is made of.
    pub code: Code,
    /// Changes whenever the object does.
    pub version: String,
    priority: Option<i32>,
    selector: Option<BTreeMap<String, String>>,
    targets: Vec<PolicyTargetReference>,
    matches: Vec<TrafficSelector>,
}

impl Extension {
    /// Name of its resource.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{PREFIX}{}.{}", self.namespace, self.name)
    }

    /// Whether it is a filter of connections, and not of requests.
    #[must_use]
    pub fn is_network(&self) -> bool {
        matches!(&self.code, Code::Wasm(wasm) if wasm.r#type() == PluginType::Network)
    }

    /// Whether it is for traffic to (`is_server`) or from a workload at a port.
    fn takes(&self, is_server: bool, port: u16) -> bool {
        let takes = |selector: &TrafficSelector| {
            let mode = match selector.mode() {
                WorkloadMode::Undefined | WorkloadMode::ClientAndServer => true,
                WorkloadMode::Client => !is_server,
                WorkloadMode::Server => is_server,
            };
            let is_port = |number: u32| number != 0 && number == u32::from(port);
            mode && (selector.ports.is_empty() || selector.ports.iter().any(|port| is_port(port.number)))
        };
        self.matches.is_empty() || self.matches.iter().any(takes)
    }
}

/// Extensions by namespace, the oldest first.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<String, Vec<Arc<Extension>>>,
    root_namespace: String,
}

impl Index {
    /// Indexes the objects of a store.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str) -> Self {
        let plugins = store.all::<WasmPlugin>().map(|(object, plugin)| {
            (object, format!("{}{OF_PLUGIN}", object.meta.name), of_plugin(plugin), version(plugin))
        });
        let extensions = store
            .all::<TrafficExtension>()
            .map(|(object, spec)| (object, object.meta.name.clone(), spec.clone(), version(spec)));
        let mut all: Vec<(&Object, String, TrafficExtension, String)> = plugins.chain(extensions).collect();
        all.sort_by(|(a, ..), (b, ..)| a.by_age(b));
        let mut namespaces: BTreeMap<String, Vec<Arc<Extension>>> = BTreeMap::new();
        for (object, name, spec, version) in all {
            // What was never validated may lack what it is made of.
            let Some(code) = code(&spec) else { continue };
            let namespace = object.meta.namespace.clone();
            let extension = Extension {
                namespace: namespace.clone(),
                name,
                phase: spec.phase(),
                code,
                version,
                priority: spec.priority.as_ref().map(|priority| priority.value),
                selector: spec.selector.map(|selector| selector.match_labels),
                targets: spec.target_refs,
                matches: spec.r#match,
            };
            namespaces.entry(namespace).or_default().push(Arc::new(extension));
        }
        Self { namespaces, root_namespace: root_namespace.into() }
    }

    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    fn of_namespace(&self, namespace: &str) -> &[Arc<Extension>] {
        self.namespaces.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Extensions of a phase for a workload and its traffic, in the order in
    /// which they stand: by priority, then the workload's namespace before the
    /// root namespace, then by age.
    #[must_use]
    pub fn select(
        &self,
        workload: Workload<'_>,
        phase: ExecutionPhase,
        is_server: bool,
        port: u16,
    ) -> Vec<&Arc<Extension>> {
        let root = (workload.namespace != self.root_namespace).then_some(self.root_namespace.as_str());
        let namespaces = std::iter::once(workload.namespace).chain(root);
        let mut found: Vec<&Arc<Extension>> = namespaces
            .flat_map(|namespace| self.of_namespace(namespace))
            .filter(|extension| {
                extension.phase == phase
                    && extension.takes(is_server, port)
                    && workload.is_selected(
                        &extension.namespace,
                        extension.selector.as_ref(),
                        &extension.targets,
                    )
            })
            .collect();
        found.sort_by_key(|extension| std::cmp::Reverse(extension.priority));
        found
    }

    /// The extension of a resource's name, if a workload of `namespace` may have it.
    #[must_use]
    pub fn named(&self, namespace: &str, resource: &str) -> Option<&Arc<Extension>> {
        let (own, name) = resource.strip_prefix(PREFIX)?.split_once('.')?;
        let is_allowed = own == namespace || own == self.root_namespace;
        is_allowed.then(|| self.of_namespace(own).iter().find(|extension| extension.name == name))?
    }
}

/// A WasmPlugin in the newer form.
fn of_plugin(plugin: &WasmPlugin) -> TrafficExtension {
    let mut targets = plugin.target_refs.clone();
    if targets.is_empty() {
        targets.extend(plugin.target_ref.clone());
    }
    let selectors = plugin.r#match.iter();
    TrafficExtension {
        selector: plugin.selector.clone(),
        target_refs: targets,
        // Both enumerations have the same numbers.
        phase: plugin.phase,
        priority: plugin.priority,
        r#match: selectors
            .map(|selector| TrafficSelector { mode: selector.mode, ports: selector.ports.clone() })
            .collect(),
        filter_config: Some(FilterConfig::Wasm(WasmConfig {
            url: plugin.url.clone(),
            sha256: plugin.sha256.clone(),
            image_pull_policy: plugin.image_pull_policy,
            image_pull_secret: plugin.image_pull_secret.clone(),
            verification_key: plugin.verification_key.clone(),
            plugin_config: plugin.plugin_config.clone(),
            plugin_name: plugin.plugin_name.clone(),
            fail_strategy: plugin.fail_strategy,
            vm_config: plugin.vm_config.clone(),
            r#type: plugin.r#type,
        })),
    }
}

fn code(spec: &TrafficExtension) -> Option<Code> {
    match spec.filter_config.as_ref()? {
        FilterConfig::Wasm(wasm) if wasm.url.is_empty() => None,
        FilterConfig::Wasm(wasm) => Some(Code::Wasm(Box::new(wasm.clone()))),
        FilterConfig::Lua(lua) if lua.inline_code.is_empty() || lua.inline_code.len() > MAX_SCRIPT => None,
        FilterConfig::Lua(lua) => Some(Code::Lua(lua.inline_code.clone())),
    }
}

/// What stands for Kubernetes' version of an object, which sources of files
/// have not: another one for every other content.
fn version(spec: &impl serde::Serialize) -> String {
    // By way of a value, in which fields have an order.
    let text = serde_json::to_value(spec).map(|value| value.to_string()).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
