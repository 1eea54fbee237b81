//! Metadata and small pieces that templates share.

use names::{annotation, label};
use serde_json::{Map, Value, json};

use super::Context;
use crate::pod;
use crate::quantity;

/// Longest value of a label.
const LABEL: usize = 63;

/// The containers of the application.
pub(super) fn applications<'a>(context: &'a Context<'_>) -> Vec<&'a str> {
    let all = pod::list(context.pod, pod::CONTAINERS).iter().map(pod::name);
    all.filter(|name| *name != pod::PROXY).collect()
}

/// The canonical service and revision of the workload.
pub(super) fn canonical(context: &Context<'_>) -> Map<String, Value> {
    let name = context
        .label(label::CANONICAL_NAME)
        .or_else(|| context.label(label::APP_NAME))
        .or_else(|| context.label("app"))
        .unwrap_or(&context.owner.name);
    let end = (0..=name.len().min(LABEL)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let name = name[..end].trim_matches(['-', '_', '.']);
    let revision = context
        .label(label::CANONICAL_REVISION)
        .or_else(|| context.label(label::APP_VERSION))
        .or_else(|| context.label("version"))
        .unwrap_or("latest");
    Map::from_iter([
        (label::CANONICAL_NAME.to_owned(), name.into()),
        (label::CANONICAL_REVISION.to_owned(), revision.into()),
    ])
}

/// The revision, and the container that `kubectl` means by default.
pub(super) fn annotations(context: &Context<'_>) -> Map<String, Value> {
    let revision = context.settings.revision_name();
    let mut all = Map::from_iter([(annotation::INJECTED_REVISION.to_owned(), revision.into())]);
    if let Some(first) = applications(context).first() {
        for key in [annotation::DEFAULT_LOGS_CONTAINER, annotation::DEFAULT_CONTAINER] {
            if context.annotation(key).is_none() {
                all.insert(key.into(), (*first).into());
            }
        }
    }
    all
}

/// Resources of the proxy: those of annotations, or else those of the values;
/// nothing when there are none.
pub(super) fn resources(context: &Context<'_>) -> Option<Value> {
    let given = |pairs: [(&str, &str); 2]| -> Option<Value> {
        let pairs = pairs.iter().filter_map(|(name, key)| {
            Some(((*name).to_owned(), Value::from(quantity::canonical(context.annotation(key)?))))
        });
        let map: Map<String, Value> = pairs.collect();
        (!map.is_empty()).then_some(Value::Object(map))
    };
    let requests = given([("cpu", annotation::PROXY_CPU), ("memory", annotation::PROXY_MEMORY)]);
    let limits = given([("cpu", annotation::PROXY_CPU_LIMIT), ("memory", annotation::PROXY_MEMORY_LIMIT)]);
    if requests.is_some() || limits.is_some() {
        let parts = [("requests", requests), ("limits", limits)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
        return Some(Value::Object(parts.collect()));
    }
    let mut resources = without_nulls(context.settings.values.given("global.proxy.resources")?)?;
    amounts(&mut resources);
    Some(resources)
}

/// Brings all amounts of a container's resources to their one spelling.
pub(crate) fn amounts(resources: &mut Value) {
    for list in ["requests", "limits"] {
        let list = resources.get_mut(list).and_then(Value::as_object_mut);
        for amount in list.into_iter().flat_map(Map::values_mut) {
            let text = crate::settings::scalar(amount);
            if !text.is_empty() {
                *amount = quantity::canonical(&text).into();
            }
        }
    }
}

/// The value without what Helm's users have set to null, and without the maps
/// that become empty by it.
fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let kept: Map<String, Value> =
                fields.iter().filter_map(|(key, part)| Some((key.clone(), without_nulls(part)?))).collect();
            (!kept.is_empty() || fields.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) => {
            let kept: Vec<Value> = items.iter().filter_map(without_nulls).collect();
            (!kept.is_empty() || items.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other.clone()),
    }
}

/// Variables in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<Value>);

impl Variables {
    pub(super) fn value(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.push(if value.is_empty() {
            // As Kubernetes writes it.
            json!({"name": name})
        } else {
            json!({"name": name, "value": value})
        });
        self
    }

    /// A value that is only told when there is one.
    pub(super) fn some(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.value(name, value) }
    }

    pub(super) fn field(&mut self, name: &str, path: &str) -> &mut Self {
        self.0.push(json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
        self
    }

    /// A limit of the container, in whole units.
    pub(super) fn limit(&mut self, name: &str, resource: &str) -> &mut Self {
        self.0.push(
            json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}}),
        );
        self
    }

    /// Variables of the mesh and of the pod's annotation.
    pub(super) fn metadata(&mut self, context: &Context<'_>) -> &mut Self {
        for (name, value) in &context.proxy.proxy_metadata {
            self.value(name, value);
        }
        self
    }

    pub(super) fn build(self) -> Value {
        Value::Array(self.0)
    }
}
