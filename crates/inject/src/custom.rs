//! Templates of the user: a part of a pod in YAML that is merged into pods as
//! Kubernetes merges patches. docs/injection.md tells how to write one.
//!
//! Placeholders are put in after the YAML is read: whatever stands in an
//! annotation or a value, it stays one string.

use serde_json::{Map, Value};

use crate::pod;
use crate::template::Context;

/// Templates of Istio's chart that are for gateways of the Gateway API, and are
/// no parts of pods.
pub(crate) const IS_OF_GATEWAYS: [&str; 4] =
    ["waypoint", "kube-gateway", "agentgateway", "agentgateway-waypoint"];

/// Name of a container that stands for each container of the application.
const EACH: &str = "*";
const OPEN: &str = "${inject:";

/// Why an overlay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is written for Istio's template engine.
    #[error(
        "it is text of Istio's template engine ({{{{ ... }}}}), which does not run here: write it as an overlay, \
         see docs/injection.md"
    )]
    GoText,
    /// It is no YAML, or no map.
    #[error("{0}")]
    Yaml(String),
    /// It has something else than a pod has.
    #[error("{0}: an overlay has metadata (labels, annotations) and spec, as a pod")]
    Field(String),
    /// A placeholder that is none.
    #[error("{0}: there is no such placeholder; there are: {known}", known = NAMES.join(", "))]
    Placeholder(String),
    /// What comes of it is no pod.
    #[error(transparent)]
    Shape(#[from] crate::shape::Error),
}

const NAMES: [&str; 9] = [
    "${inject:pod.name}",
    "${inject:pod.namespace}",
    "${inject:pod.serviceAccountName}",
    "${inject:workload.name}",
    "${inject:workload.kind}",
    "${inject:proxy.image}",
    "${inject:revision}",
    "${inject:annotation NAME}",
    "${inject:value PATH}",
];

/// An overlay that was read.
#[derive(Clone, Debug)]
pub(crate) struct Overlay(Value);

impl Overlay {
    /// Reads one.
    pub(crate) fn read(text: &str) -> Result<Self, Error> {
        let value = mesh::yaml::parse(text).map_err(|error| Error::Yaml(error.to_string()))?;
        for field in value.as_object().into_iter().flat_map(Map::keys) {
            if !["apiVersion", "kind", "metadata", "spec"].contains(&field.as_str()) {
                return Err(Error::Field(field.clone()));
            }
        }
        crate::shape::check(&value)?;
        placeholders(&value)?;
        Ok(Self(value))
    }

    /// It for one pod.
    pub(crate) fn build(&self, context: &Context<'_>) -> Value {
        let mut built = self.0.clone();
        if let Some(fields) = built.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        for field in [pod::CONTAINERS, pod::INIT_CONTAINERS] {
            if pod::find(pod::list(&built, field), EACH).is_none() {
                continue;
            }
            let names: Vec<String> = pod::list(context.pod, field)
                .iter()
                .map(|container| pod::name(container).to_owned())
                .filter(|name| name != pod::PROXY)
                .collect();
            let list = std::mem::take(pod::spec_list(&mut built, field));
            *pod::spec_list(&mut built, field) = list
                .into_iter()
                .flat_map(|container| {
                    if pod::name(&container) != EACH {
                        return vec![container];
                    }
                    let copy = |name: &String| {
                        let mut copy = container.clone();
                        copy["name"] = name.clone().into();
                        copy
                    };
                    names.iter().map(copy).collect()
                })
                .collect();
        }
        fill(&mut built, context);
        built
    }
}

/// Checks all placeholders.
fn placeholders(value: &Value) -> Result<(), Error> {
    match value {
        Value::String(text) => {
            for part in text.split(OPEN).skip(1) {
                let name = part.split_once('}').map(|(name, _)| name);
                if name.is_none_or(|name| Placeholder::of(name).is_none()) {
                    return Err(Error::Placeholder(format!(
                        "{OPEN}{}",
                        name.map_or(part.into(), |n| format!("{n}}}"))
                    )));
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(placeholders),
        Value::Object(fields) => fields.values().try_for_each(placeholders),
        _ => Ok(()),
    }
}

enum Placeholder<'a> {
    PodName,
    PodNamespace,
    ServiceAccount,
    WorkloadName,
    WorkloadKind,
    ProxyImage,
    Revision,
    Annotation(&'a str),
    Value(&'a str),
}

impl<'a> Placeholder<'a> {
    fn of(name: &'a str) -> Option<Self> {
        Some(match name {
            "pod.name" => Self::PodName,
            "pod.namespace" => Self::PodNamespace,
            "pod.serviceAccountName" => Self::ServiceAccount,
            "workload.name" => Self::WorkloadName,
            "workload.kind" => Self::WorkloadKind,
            "proxy.image" => Self::ProxyImage,
            "revision" => Self::Revision,
            other => match other.split_once(' ')? {
                ("annotation", key) if !key.trim().is_empty() => Self::Annotation(key.trim()),
                ("value", path) if !path.trim().is_empty() => Self::Value(path.trim()),
                _ => return None,
            },
        })
    }

    fn value(&self, context: &Context<'_>) -> String {
        match self {
            Self::PodName => pod::text(context.pod, "/metadata/name").to_owned(),
            Self::PodNamespace => context.owner.namespace.clone(),
            Self::ServiceAccount => pod::text(context.pod, "/spec/serviceAccountName").to_owned(),
            Self::WorkloadName => context.owner.name.clone(),
            Self::WorkloadKind => context.owner.kind.clone(),
            Self::ProxyImage => context.proxy_image(),
            Self::Revision => context.settings.revision_name().to_owned(),
            Self::Annotation(key) => context.annotation(key).unwrap_or_default().to_owned(),
            Self::Value(path) => context.settings.values.text(path),
        }
    }
}

fn fill(value: &mut Value, context: &Context<'_>) {
    match value {
        Value::String(text) if text.contains(OPEN) => {
            let mut parts = text.split(OPEN);
            let mut filled = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let Some((name, rest)) = part.split_once('}') else { continue };
                filled.extend(Placeholder::of(name).map(|known| known.value(context)));
                filled.push_str(rest);
            }
            *text = filled;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, context)),
        Value::Object(fields) => fields.values_mut().for_each(|part| fill(part, context)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_an_overlay() {
        for (text, want) in [
            (
                "spec: {containers: [{name: a, args: ['${inject:pod.nam}']}]}",
                "${inject:pod.nam}: there is no such",
            ),
            (
                "spec: {containers: [{name: a, args: ['${inject:pod.name']}]}",
                "${inject:pod.name: there is no such",
            ),
            ("specs: {}", "specs: an overlay has metadata"),
            ("- a", "found a list"),
            ("spec: {containers: {}}", "spec.containers: expected a list"),
        ] {
            let error = Overlay::read(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        Overlay::read("metadata: {annotations: {a: '${HOME} $(X) ${inject:value global.hub}'}}").unwrap();
    }
}
