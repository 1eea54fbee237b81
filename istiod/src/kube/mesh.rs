//! The mesh configuration of a cluster: a file when there is one, else the
//! ConfigMap `istio[-REVISION]`; below it what `SHARED_MESH_CONFIG` names.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::{MeshConfig, MeshNetworks};
use proto::istio::mesh::v1alpha1 as api;
use runtime::tasks::Tasks;
use source::kubernetes::{self, ConfigMap, Operator, Requirement, Selector, Selectors};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Connection, of_revision};

/// Name of the ConfigMap of the default revision.
const MAP: &str = "istio";
/// Its key that has the mesh configuration.
const CONFIG: &str = "mesh";
/// Its key that has the networks.
const NETWORKS: &str = "meshNetworks";

/// Mesh-wide settings that may change while istiod runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// The mesh configuration.
    pub config: Arc<MeshConfig>,
    /// Networks that the mesh spans.
    pub networks: Arc<MeshNetworks>,
    /// Variables that its providers name, with their values.
    pub variables: Arc<BTreeMap<String, String>>,
}

/// Where the parts of a mesh configuration are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Text of the file of the mesh configuration, if there is one: it stands
    /// in place of the ConfigMap.
    pub file: Option<String>,
    /// The same of networks.
    pub networks_file: Option<String>,
    /// The revision of the control plane.
    pub revision: String,
    /// A further ConfigMap, which the other goes over; empty: none.
    pub shared: String,
    /// The environment, for variables that providers name.
    pub environment: Environment,
}

/// Environment variables of the program.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub Arc<BTreeMap<String, String>>);

impl std::fmt::Debug for Environment {
    /// Some are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Environment").field(&self.0.len()).finish()
    }
}

/// Follows the mesh configuration. Returns when its first state is known.
pub async fn follow(
    tasks: &Tasks,
    connection: &Connection,
    namespace: &str,
    settings: Settings,
) -> watch::Receiver<Mesh> {
    let map =
        |name: &str| kubernetes::config_map(tasks, &connection.client, &connection.health, namespace, name);
    let own_name = of_revision(MAP, &settings.revision);
    let needs_map = settings.file.is_none() || settings.networks_file.is_none();
    let mut maps = Maps {
        own: needs_map.then(|| map(&own_name)),
        shared: (!settings.shared.is_empty()).then(|| map(&settings.shared)),
        own_name,
        settings,
    };
    maps.known().await;
    let mut last = maps.read(&Mesh::default());
    let (tell, seen) = watch::channel(last.clone());
    tasks.spawn("mesh configuration", async move {
        loop {
            maps.changed().await;
            let now = maps.read(&last);
            if now != last {
                info!(target: "config", "the mesh configuration has changed");
                last = now.clone();
                if tell.send(now).is_err() {
                    return;
                }
            }
        }
    });
    seen
}

struct Maps {
    own: Option<watch::Receiver<ConfigMap>>,
    shared: Option<watch::Receiver<ConfigMap>>,
    own_name: String,
    settings: Settings,
}

impl Maps {
    /// Waits until the API server has said what there is.
    async fn known(&mut self) {
        for map in [&mut self.own, &mut self.shared].into_iter().flatten() {
            map.wait_for(|map| *map != ConfigMap::Unknown).await.ok();
        }
    }

    async fn changed(&mut self) {
        async fn of(map: &mut Option<watch::Receiver<ConfigMap>>) {
            let is_other = match map {
                Some(map) => map.changed().await.is_ok(),
                None => false,
            };
            // One that nobody follows any more, or that there is none of, never changes.
            if !is_other {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = of(&mut self.own) => {}
            () = of(&mut self.shared) => {}
        }
    }

    /// What is in force now; of what cannot be used, what was before.
    fn read(&self, before: &Mesh) -> Mesh {
        let config = self.layers(CONFIG, self.settings.file.as_deref());
        let config = self.config(&config).unwrap_or_else(|| before.config.clone());
        // Networks do not add up: the first that there are count.
        let networks = self.layers(NETWORKS, self.settings.networks_file.as_deref());
        let networks = match networks.first().map(|(name, text)| (name, MeshNetworks::from_yaml(text))) {
            None => Arc::default(),
            Some((name, Ok(networks))) => {
                networks.warnings.iter().for_each(|warning| warn!(target: "config", "{name}: {warning}"));
                Arc::new(networks)
            }
            Some((name, Err(error))) => {
                warn!(target: "config", "{name}: {error} (what it said before stays in force)");
                before.networks.clone()
            }
        };
        let mut variables = BTreeMap::new();
        for name in mesh::extension_provider::variables(&config.extension_providers) {
            match self.settings.environment.0.get(name) {
                Some(value) => drop(variables.insert(name.to_owned(), value.clone())),
                None => {
                    warn!(target: "config", "extensionProviders: {name} is not set: the header is sent without a value");
                }
            }
        }
        Mesh { config, networks, variables: Arc::new(variables) }
    }

    /// Texts of a key, the lowest layer first, each with what it is from.
    fn layers(&self, key: &str, file: Option<&str>) -> Vec<(String, String)> {
        let of = |map: &Option<watch::Receiver<ConfigMap>>, name: &str| {
            let text = map.as_ref()?.borrow().get(key)?.to_owned();
            Some((format!("ConfigMap {name}, {key}"), text))
        };
        let shared = of(&self.shared, &self.settings.shared);
        let own = match file {
            Some(text) => Some((format!("file of {key}"), text.to_owned())),
            None => of(&self.own, &self.own_name),
        };
        shared.into_iter().chain(own).collect()
    }

    /// All layers over the defaults; `None` when the only one cannot be used.
    /// Of several, those that can be are.
    fn config(&self, layers: &[(String, String)]) -> Option<Arc<MeshConfig>> {
        let mut config = MeshConfig::default();
        for (name, text) in layers {
            match config.overlaid(text) {
                Ok(next) => {
                    next.unknown_fields.iter().for_each(
                        |field| warn!(target: "config", "{name}: {field}: no such field; it has no effect"),
                    );
                    next.warnings().iter().for_each(|warning| warn!(target: "config", "{name}: {warning}"));
                    config = next;
                }
                Err(error) if layers.len() == 1 => {
                    warn!(target: "config", "{name}: {error} (what it said before stays in force)");
                    return None;
                }
                Err(error) => warn!(target: "config", "{name}: {error} (it has no effect)"),
            }
        }
        Some(Arc::new(config))
    }
}

/// The namespaces that are part of the mesh. A selector that cannot be read
/// fits nothing: it is told, and no namespace joins by mistake.
#[must_use]
pub fn selectors(config: &MeshConfig) -> Selectors {
    config.discovery_selectors.iter().map(selector).collect()
}

fn selector(selector: &api::LabelSelector) -> Selector {
    let requirement = |requirement: &api::LabelSelectorRequirement| {
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                warn!(target: "config", "discoverySelectors: {other:?} is no operator: use In, NotIn, Exists or DoesNotExist");
                // `In` nothing.
                return Requirement {
                    key: requirement.key.clone(),
                    operator: Operator::In,
                    values: Vec::new(),
                };
            }
        };
        Requirement { key: requirement.key.clone(), operator, values: requirement.values.clone() }
    };
    Selector {
        labels: selector.match_labels.clone().into_iter().collect(),
        requirements: selector.match_expressions.iter().map(requirement).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(own: Option<&str>, shared: Option<&str>, file: Option<&str>) -> Maps {
        let map = |text: Option<&str>| {
            let data = text.map_or(ConfigMap::Missing, |text| {
                ConfigMap::Data(Arc::new(BTreeMap::from([(CONFIG.to_owned(), text.to_owned())])))
            });
            Some(watch::channel(data).1)
        };
        let settings =
            Settings { file: file.map(str::to_owned), shared: "user".into(), ..Settings::default() };
        Maps { own: map(own), shared: map(shared), own_name: MAP.into(), settings }
    }

    fn domain(maps: &Maps) -> String {
        maps.read(&Mesh::default()).config.trust_domain().to_owned()
    }

    #[test]
    fn layers_go_over_each_other() {
        let (a, b) = ("{trustDomain: a, ingressClass: x}", "{trustDomain: b}");
        assert_eq!(domain(&maps(None, None, None)), "cluster.local");
        assert_eq!(domain(&maps(Some(a), None, None)), "a");
        assert_eq!(domain(&maps(Some(b), Some(a), None)), "b");
        assert_eq!(domain(&maps(Some(a), Some(b), Some("{}"))), "b");
        let both = maps(Some(b), Some(a), None).read(&Mesh::default());
        assert_eq!(both.config.ingress_class, "x");
    }

    #[test]
    fn what_cannot_be_used_leaves_the_rest_in_force() {
        let before = maps(Some("{trustDomain: a}"), None, None).read(&Mesh::default());
        assert_eq!(maps(Some("{trustDomain: 1/}"), None, None).read(&before).config.trust_domain(), "a");
        assert_eq!(domain(&maps(Some("{"), Some("{trustDomain: b}"), None)), "b");
    }

    #[test]
    fn selectors_are_read_with_their_expressions() {
        let text =
            "discoverySelectors: [{matchLabels: {a: b}}, {matchExpressions: [{key: c, operator: Exists}]}]";
        let selectors = selectors(&MeshConfig::from_yaml(text).unwrap());
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "b".to_owned())]);
        let fits = |key: &str| selectors.iter().any(|selector| selector.matches(&labels(key)));
        assert!(fits("a") && fits("c") && !fits("d"));
    }
}
