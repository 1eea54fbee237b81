//! Injection step by step: strip, build, merge, lay the user's containers on
//! top, then what cannot be said by a patch.

use std::collections::BTreeMap;

use mesh::{MeshConfig, ProxyConfig};
use names::{annotation as key, label};
use proto::istio::mesh::v1alpha1::proxy_config::InboundInterceptionMode;
use serde_json::{Map, Value, json};

use crate::annotation;
use crate::custom;
use crate::merge;
use crate::owner::Owner;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS, Place};
use crate::probe;
use crate::prometheus;
use crate::reinject::{self, OverridesError, Status};
use crate::settings::{Settings, Template};
use crate::shape;
use crate::template::{self, Context};

const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
const NETWORK: &str = "ISTIO_META_NETWORK";

/// Why a pod cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no pod.
    #[error(transparent)]
    Shape(#[from] shape::Error),
    /// Annotations cannot be used.
    #[error("failed to run injection template: {0}")]
    Annotations(#[from] annotation::Errors),
    /// The pod names a template that is not there.
    #[error("failed to run injection template: requested template {name:?} not found; have {known}")]
    NoTemplate {
        /// What it names.
        name: String,
        /// What is there.
        known: String,
    },
    /// A template of the user's cannot be used.
    #[error("failed to run injection template: template {name:?}: {source}")]
    Custom {
        /// Its name.
        name: String,
        /// Why not.
        source: custom::Error,
    },
    /// A template cannot be used for this pod.
    #[error("failed to run injection template: {0}")]
    Template(#[from] template::Error),
    /// What the pod tells of an earlier injection cannot be used.
    #[error("failed to re apply container: {0}")]
    Overrides(#[from] OverridesError),
    /// What Prometheus is told cannot be used.
    #[error("failed to process pod: {0}")]
    Prometheus(#[from] prometheus::Error),
}

/// One pod to be injected.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Settings of the mesh.
    pub mesh: &'a MeshConfig,
    /// What it belongs to.
    pub owner: Owner,
    /// Settings of its proxy, of all layers.
    pub proxy: ProxyConfig,
    /// Whether its cluster runs restartable init containers.
    pub native: bool,
    /// Variables that the webhook's URL carries.
    pub variables: BTreeMap<String, String>,
    /// User and group of the proxy.
    pub ids: (i64, i64),
}

impl Request<'_> {
    /// User and group of the proxy, unless the platform wants others.
    pub const IDS: (i64, i64) = (names::port::PROXY_UID as i64, names::port::PROXY_UID as i64);
}

/// The injected pod.
///
/// # Errors
/// When the pod asks for what cannot be done; it must not run uninjected then.
pub fn inject(settings: &Settings, request: &Request<'_>) -> Result<Value, Error> {
    shape::check(request.pod)?;
    annotation::check(&pod::strings(request.pod, "annotations"))?;
    let agent = i64::from(request.proxy.status_port);
    let status = Status::read(request.pod);
    let stripped = reinject::strip(request.pod, status.as_ref(), agent)?;
    let context = Context {
        settings,
        mesh: request.mesh,
        pod: &stripped,
        annotations: pod::strings(&stripped, "annotations"),
        labels: pod::strings(&stripped, "labels"),
        proxy: &request.proxy,
        owner: &request.owner,
        native: request.native,
        uid: request.ids.0,
        gid: request.ids.1,
    };
    let mut merged = request.pod.clone();
    let mut injected = Value::Object(Map::new());
    for name in selected(settings, request.pod) {
        let patch = build(settings, &context, &name)?;
        merge::pod(&mut injected, &patch);
        // The user wrote the proxy's container where it was before there were
        // restartable init containers.
        if template::moves_to_init(&pod::strings(&merged, "annotations"), request.native)
            && pod::find(pod::list(&injected, INIT_CONTAINERS), pod::PROXY).is_some()
            && pod::find(pod::list(&merged, CONTAINERS), pod::PROXY).is_some()
        {
            let list = pod::spec_list(&mut merged, CONTAINERS);
            if let Some(index) = list.iter().position(|container| pod::name(container) == pod::PROXY) {
                let container = list.remove(index);
                pod::spec_list(&mut merged, INIT_CONTAINERS).push(container);
            }
        }
        merge::pod(&mut merged, &patch);
    }
    reinject::reapply(&mut merged, request.pod, &injected, status.as_ref())?;
    let is_tproxy = request.proxy.interception_mode() == InboundInterceptionMode::Tproxy;
    reinject::adjust_user(&mut merged, &stripped, is_tproxy);

    let variables = variables(settings, request);
    overwrite(&mut merged, &variables);
    prometheus::merge(&mut merged, request.mesh, agent)?;
    prometheus::secure_port(&mut merged);
    let setting = settings.values.is_on("sidecarInjectorWebhook.rewriteAppHTTPProbe");
    if probe::is_on(&merged, setting) {
        probe::rewrite(&mut merged, agent);
    }
    if let Some(network) = variables.get(NETWORK) {
        pod::metadata_map(&mut merged, "labels").insert(label::NETWORK.into(), network.clone().into());
    }
    let annotations = pod::metadata_map(&mut merged, "annotations");
    let status = Status::of(&injected, settings.revision_name());
    annotations.insert(key::INJECTION_STATUS.into(), status.into());
    for (name, value) in &settings.injected_annotations {
        annotations.insert(name.clone(), value.clone().into());
    }
    order(&mut merged, settings, &request.proxy);
    Ok(merged)
}

/// The templates that a pod asks for, by name.
fn selected(settings: &Settings, pod: &Value) -> Vec<String> {
    let own = pod["metadata"]["annotations"][key::INJECT_TEMPLATES].as_str();
    let names: Vec<String> = match own {
        Some(own) => own.split(',').map(|name| name.trim().to_owned()).collect(),
        None => settings.default_templates.clone(),
    };
    let expand = |name: String| match settings.aliases.get(&name) {
        Some(names) => names.clone(),
        None => vec![name],
    };
    names.into_iter().flat_map(expand).collect()
}

fn build(settings: &Settings, context: &Context<'_>, name: &str) -> Result<Value, Error> {
    match settings.templates.get(name) {
        Some(Template::BuiltIn(kind)) => Ok(kind.build(context)?),
        Some(Template::Overlay(overlay)) => {
            let patch = overlay.build(context);
            let wrong = |source: shape::Error| Error::Custom { name: name.to_owned(), source: source.into() };
            shape::check(&patch).map_err(wrong)?;
            Ok(patch)
        }
        Some(Template::GoText) => Err(Error::Custom { name: name.to_owned(), source: custom::Error::GoText }),
        None => {
            let known: Vec<&str> = settings.templates.keys().map(String::as_str).collect();
            Err(Error::NoTemplate { name: name.to_owned(), known: known.join(", ") })
        }
    }
}

/// The variables of the URL; cluster and network are told by values and label
/// as well.
fn variables(settings: &Settings, request: &Request<'_>) -> BTreeMap<String, String> {
    let mut all = request.variables.clone();
    let mut default = |name: &str, path: &str| {
        if all.get(name).is_none_or(String::is_empty) {
            let value = settings.values.text(path);
            if !value.is_empty() {
                all.insert(name.to_owned(), value);
            }
        }
    };
    default(CLUSTER, "global.multiCluster.clusterName");
    default(NETWORK, "global.network");
    let label = request.pod["metadata"]["labels"][label::NETWORK].as_str();
    if let Some(network) = label.filter(|network| !network.is_empty()) {
        all.insert(NETWORK.to_owned(), network.to_owned());
    }
    all
}

/// The cluster of a pod that came with these variables.
pub(crate) fn cluster(settings: &Settings, variables: &BTreeMap<String, String>) -> String {
    let own = variables.get(CLUSTER).filter(|cluster| !cluster.is_empty());
    let cluster = own.cloned().unwrap_or_else(|| settings.values.text("global.multiCluster.clusterName"));
    if cluster.is_empty() { "Kubernetes".to_owned() } else { cluster }
}

/// Puts the variables into the proxy, in place of others of the same names.
fn overwrite(pod: &mut Value, variables: &BTreeMap<String, String>) {
    if variables.is_empty() {
        return;
    }
    let Some(proxy) = pod::proxy_mut(pod) else { return };
    let list = pod::list_in(proxy, "env");
    list.retain(|variable| !variables.contains_key(pod::name(variable)));
    // Before what later steps append, so that a second injection finds its own order.
    let later = [prometheus::VARIABLE, probe::VARIABLE];
    let at = list.iter().position(|variable| later.contains(&pod::name(variable))).unwrap_or(list.len());
    let added = variables.iter().map(|(name, value)| {
        if value.is_empty() { json!({"name": name}) } else { json!({"name": name, "value": value}) }
    });
    list.splice(at..at, added);
}

/// Puts containers where they work: see each line.
fn order(pod: &mut Value, settings: &Settings, proxy: &ProxyConfig) {
    let holds = proxy.hold_application_until_proxy_starts.as_ref().is_some_and(|value| value.value)
        || settings.values.is_on("global.proxy.holdApplicationUntilProxyStarts");
    // Last, so that `kubectl exec` means the application; first, when it must
    // be there before the application starts.
    pod::move_to(pod, CONTAINERS, pod::PROXY, if holds { Place::First } else { Place::Last });
    if pod::find(pod::list(pod, INIT_CONTAINERS), pod::PROXY).is_some() {
        // Rules, then the proxy, so that all other init containers are in the mesh.
        for name in [pod::CORE_DUMP, pod::PROXY, pod::VALIDATION, pod::INIT] {
            pod::move_to(pod, INIT_CONTAINERS, name, Place::First);
        }
    } else {
        // Other init containers run before traffic is led to a proxy that is not there yet.
        pod::move_to(pod, INIT_CONTAINERS, pod::VALIDATION, Place::First);
        pod::move_to(pod, INIT_CONTAINERS, pod::INIT, Place::Last);
        pod::move_to(pod, INIT_CONTAINERS, pod::CORE_DUMP, Place::Last);
    }
}

#[cfg(test)]
mod tests;
