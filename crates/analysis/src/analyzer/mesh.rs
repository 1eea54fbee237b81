//! Which workloads are in the mesh.

use crate::kube::Container;
use crate::{Labels, Resource, World};

/// Name of the sidecar's container.
pub(super) const PROXY: &str = "istio-proxy";
/// Annotation of pods whose traffic a node proxy takes.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Label that says by what a namespace takes part.
pub(super) const MODE: &str = "istio.io/dataplane-mode";

/// Whether pods of a namespace get sidecars when they do not say.
pub(super) fn injects(labels: &Labels) -> bool {
    match labels.get(names::label::INJECTION) {
        Some(word) => word == "enabled",
        None => labels.get(names::label::REVISION).is_some_and(|revision| !revision.is_empty()),
    }
}

/// Whether pods with these labels, annotations and containers have a sidecar, or get one.
pub(super) fn has_sidecar<'a>(
    world: &World,
    namespace: &str,
    labels: &Labels,
    annotations: &Labels,
    mut containers: impl Iterator<Item = &'a Container>,
) -> bool {
    if containers.any(|one| *one.name == *PROXY && !one.image.is_empty()) {
        return true;
    }
    let said = labels.get(names::label::INJECT).or_else(|| annotations.get(names::label::INJECT));
    match said {
        Some(word) => word == "true",
        None => world.namespace_labels(namespace).is_some_and(injects),
    }
}

/// Whether a pod's traffic goes through a node proxy.
pub(super) fn is_ambient(pod: &Resource) -> bool {
    pod.annotations.get(REDIRECTION) == Some("enabled")
}

/// Whether a namespace takes part by node proxies.
pub(super) fn is_ambient_namespace(labels: &Labels) -> bool {
    labels.get(names::label::INJECTION) != Some("enabled")
        && labels.get(names::label::REVISION).is_none_or(str::is_empty)
        && labels.get(MODE) == Some("ambient")
}

/// Whether an object is a part of the control plane.
pub(super) fn is_control_plane(one: &Resource) -> bool {
    one.labels.has("istio") || one.labels.get("release") == Some("istio")
}

/// The ConfigMap with the injector's settings of a revision.
pub(super) fn injector(revision: &str) -> String {
    let name = "istio-sidecar-injector";
    if ["", "default"].contains(&revision) { name.to_owned() } else { format!("{name}-{revision}") }
}

/// The field of a label in a map of labels.
pub(super) fn label_field(map: &str, selector: &str) -> String {
    format!("{map}.{}", selector.split('=').next().unwrap_or_default())
}

/// Names of objects, sorted, as they stand in messages.
pub(super) fn names(all: &[&Resource]) -> String {
    let mut names: Vec<&str> = all.iter().map(|one| &*one.name).collect();
    names.sort_unstable();
    crate::message::list(&names)
}
