//! Injection of a pod that was injected before, and containers of the user's
//! that have the name of an injected one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::merge;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS};
use crate::prometheus;
use crate::template;

/// Image that means: the injector's.
const AUTO: &str = "auto";

/// The annotation that tells what was injected.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    init_containers: Option<Vec<String>>,
    containers: Option<Vec<String>>,
    volumes: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
    revision: String,
}

impl Status {
    /// What a template puts into a pod.
    pub(crate) fn of(injected: &Value, revision: &str) -> String {
        let names = |field: &str| {
            let names: Vec<String> =
                pod::list(injected, field).iter().map(|item| pod::name(item).to_owned()).collect();
            (!names.is_empty()).then_some(names)
        };
        let status = Self {
            init_containers: names(INIT_CONTAINERS),
            containers: names(CONTAINERS),
            volumes: names("volumes"),
            image_pull_secrets: names("imagePullSecrets"),
            revision: revision.to_owned(),
        };
        // These are strings only.
        serde_json::to_string(&status).unwrap_or_default()
    }

    /// What the pod tells of an earlier injection.
    pub(crate) fn read(pod: &Value) -> Option<Self> {
        let text = pod["metadata"]["annotations"][names::annotation::INJECTION_STATUS].as_str()?;
        serde_json::from_str(text).ok()
    }

    fn names(&self, field: &str) -> &[String] {
        let names = if field == CONTAINERS { &self.containers } else { &self.init_containers };
        names.as_deref().unwrap_or_default()
    }
}

/// The annotation with the user's containers that have names of injected ones.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Overrides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Value>,
}

/// The annotation cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("annotation '{key}': {why}: remove it, or write what the injector wrote", key = names::annotation::PROXY_OVERRIDES)]
pub struct OverridesError {
    why: String,
}

impl Overrides {
    fn read(pod: &Value) -> Result<Self, OverridesError> {
        let Some(text) = pod["metadata"]["annotations"][names::annotation::PROXY_OVERRIDES].as_str() else {
            return Ok(Self::default());
        };
        let wrong = |why: String| OverridesError { why };
        let overrides: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let spec = json!({"spec": {"containers": overrides.containers, "initContainers": overrides.init_containers}});
        crate::shape::check(&spec).map_err(|error| wrong(error.to_string()))?;
        Ok(overrides)
    }

    fn of(&self, field: &str) -> &[Value] {
        if field == CONTAINERS { &self.containers } else { &self.init_containers }
    }

    fn push(&mut self, field: &str, container: Value) {
        let list = if field == CONTAINERS { &mut self.containers } else { &mut self.init_containers };
        list.push(container);
    }
}

/// The pod as its owner wrote it, as far as it can be told.
pub(crate) fn strip(original: &Value, status: Option<&Status>, agent: i64) -> Result<Value, OverridesError> {
    let mut pod = original.clone();
    if let Some(status) = status {
        for field in [CONTAINERS, INIT_CONTAINERS] {
            let names = status.names(field);
            if !pod::list(&pod, field).is_empty() {
                pod::spec_list(&mut pod, field)
                    .retain(|container| !names.iter().any(|name| name == pod::name(container)));
            }
        }
        prometheus::strip(&mut pod, agent);
        pod::metadata_map(&mut pod, "annotations").remove(names::annotation::INJECTION_STATUS);
    }
    let overrides = Overrides::read(original)?;
    for field in [CONTAINERS, INIT_CONTAINERS] {
        for container in overrides.of(field) {
            if pod::find(pod::list(&pod, field), pod::name(container)).is_none() {
                pod::spec_list(&mut pod, field).push(container.clone());
            }
        }
    }
    Ok(pod)
}

/// Lays the user's containers on the injected ones of the same names again, so
/// that what the user wrote wins, and notes them for the next injection.
pub(crate) fn reapply(
    merged: &mut Value,
    original: &Value,
    injected: &Value,
    status: Option<&Status>,
) -> Result<(), OverridesError> {
    let earlier = Overrides::read(original)?;
    let annotations = &original["metadata"]["annotations"];
    let was_injected = annotations.get(names::annotation::INJECTION_STATUS).is_some();
    let mut overrides = Overrides::default();
    for field in [CONTAINERS, INIT_CONTAINERS] {
        for container in pod::list(injected, field) {
            let name = pod::name(container);
            // An earlier injection's container is not the user's, but for what was noted then.
            let is_ours = status.is_some_and(|status| status.names(field).iter().any(|known| known == name));
            let own = pod::find(earlier.of(field), name).or_else(|| {
                if is_ours {
                    None
                } else if field == CONTAINERS {
                    pod::find(pod::list(original, field), name)
                } else {
                    pod::container(original, name)
                }
            });
            let Some(own) = own else { continue };
            let own = written(own);
            merge::pod(merged, &json!({"spec": {field: [own]}}));
            overrides.push(field, own);
        }
    }
    let is_empty = overrides.containers.is_empty() && overrides.init_containers.is_empty();
    if !was_injected && !is_empty {
        let text = serde_json::to_string(&overrides).unwrap_or_default();
        pod::metadata_map(merged, "annotations")
            .insert(names::annotation::PROXY_OVERRIDES.into(), text.into());
    }
    Ok(())
}

/// A container without fields that say nothing, and without the image that
/// means the injector's.
fn written(container: &Value) -> Value {
    let mut written = without_empty(container);
    if written["image"] == AUTO
        && let Some(fields) = written.as_object_mut()
    {
        fields.remove("image");
    }
    if let Some(resources) = written.get_mut("resources") {
        template::amounts(resources);
    }
    written
}

fn without_empty(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, part)| !is_empty(part));
            Value::Object(kept.map(|(key, part)| (key.clone(), without_empty(part))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

/// The init container spares traffic of the user that the proxy runs as: when
/// the user's own container, in the pod as its owner wrote it, changes that, so
/// must the init container.
pub(crate) fn adjust_user(merged: &mut Value, written: &Value, is_tproxy: bool) {
    let Some(own) = pod::container(written, pod::PROXY) else { return };
    let security = &own["securityContext"];
    let (user, group) = (security["runAsUser"].as_i64(), security["runAsGroup"].as_i64());
    if user.is_none() && group.is_none() {
        return;
    }
    let init = [pod::INIT, pod::VALIDATION]
        .into_iter()
        .find(|name| pod::find(pod::list(merged, INIT_CONTAINERS), name).is_some());
    let Some(init) = init else { return };
    let is_tproxy =
        is_tproxy || merged["metadata"]["annotations"][names::annotation::INTERCEPTION_MODE] == "TPROXY";
    // Transparent sockets need root.
    if is_tproxy
        && user.is_some()
        && let Some(proxy) = pod::proxy_mut(merged)
    {
        pod::object(proxy, "securityContext").insert("runAsUser".into(), 0.into());
    }
    let list = pod::spec_list(merged, INIT_CONTAINERS);
    let Some(container) = list.iter_mut().find(|container| pod::name(container) == init) else { return };
    if !is_tproxy && init == pod::VALIDATION {
        let security = pod::object(container, "securityContext");
        for (field, id) in [("runAsUser", user), ("runAsGroup", group)] {
            if let Some(id) = id {
                security.insert(field.into(), id.into());
            }
        }
    }
    // Traffic of root cannot be spared: too much runs as root.
    if let Some(user) = user.filter(|user| *user != 0)
        && let Some(args) = container.get_mut("args").and_then(Value::as_array_mut)
        && let Some(flag) = args.iter().position(|word| word == "-u")
        && let Some(value) = args.get_mut(flag + 1)
    {
        *value = user.to_string().into();
    }
}
