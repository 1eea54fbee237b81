//! What the injector is told: its ConfigMap (`config` and `values`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::custom::{self, Overlay};
use crate::template;

/// Template that pods get when nobody says otherwise.
const DEFAULT_TEMPLATE: &str = "sidecar";

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document cannot be read.
    #[error("{document}: {why}")]
    Document {
        /// `config` or `values`.
        document: &'static str,
        /// Why not.
        why: String,
    },
    /// One template cannot be used.
    #[error("config: template {name:?}: {source}")]
    Template {
        /// Its name.
        name: String,
        /// Why not.
        source: custom::Error,
    },
}

/// Whether pods are injected of which nobody says anything.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// They are.
    Enabled,
    /// They are not.
    #[default]
    Disabled,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values of the first two.
    pub values: Vec<String>,
}

/// A label selector.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that must have these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

impl Selector {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether labels fulfil it. A requirement that is none fits nothing.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|rule| {
                let value = labels.get(&rule.key);
                match rule.operator.as_str() {
                    "In" => value.is_some_and(|value| rule.values.contains(value)),
                    "NotIn" => value.is_none_or(|value| !rule.values.contains(value)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// The document `config` of the ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    policy: Policy,
    default_templates: Option<Vec<String>>,
    templates: Option<BTreeMap<String, String>>,
    aliases: Option<BTreeMap<String, Vec<String>>>,
    never_inject_selector: Option<Vec<Selector>>,
    always_inject_selector: Option<Vec<Selector>>,
    injected_annotations: Option<BTreeMap<String, String>>,
}

/// A template by name.
#[derive(Clone, Debug)]
pub(crate) enum Template {
    /// One of ours.
    BuiltIn(template::Kind),
    /// One of the user's.
    Overlay(Overlay),
    /// Text of Istio's template engine.
    GoText,
}

/// Everything that injection is told beforehand.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether pods are injected of which nobody says anything.
    pub policy: Policy,
    /// Templates of pods that name none.
    pub default_templates: Vec<String>,
    pub(crate) templates: BTreeMap<String, Template>,
    /// Names that stand for several templates.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Pods that are not injected.
    pub never_inject: Vec<Selector>,
    /// Pods that are.
    pub always_inject: Vec<Selector>,
    /// Annotations that every injected pod gets.
    pub injected_annotations: BTreeMap<String, String>,
    /// Helm's values.
    pub values: Values,
    /// Revision of the control plane; empty or `default` for the default one.
    pub revision: String,
    /// `COMPLIANCE_POLICY`, such as `fips-140-2`.
    pub compliance_policy: String,
    /// `PLATFORM`: on `openshift` namespaces say which users there are.
    pub platform: String,
    /// What has no effect, or another one than the user may think.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads both documents of the ConfigMap.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn read(config: &str, values: &str, revision: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Document { document: "config", why };
        let parsed = mesh::yaml::parse(config).map_err(|error| wrong(error.to_string()))?;
        let document: Document = serde_json::from_value(parsed).map_err(|error| wrong(error.to_string()))?;
        let mut warnings = Vec::new();
        let mut templates: BTreeMap<String, Template> = template::Kind::ALL
            .iter()
            .map(|kind| (kind.name().to_owned(), Template::BuiltIn(*kind)))
            .collect();
        for (name, text) in document.templates.unwrap_or_default() {
            let is_built_in = template::Kind::ALL.iter().any(|kind| kind.name() == name);
            if text.contains("{{") {
                if is_built_in {
                    warnings.push(format!(
                        "config: template {name:?} is text of Istio's template engine, which does not run here: \
                         the built-in one of that name is used; changes of it belong into an overlay, see \
                         docs/injection.md"
                    ));
                } else if !custom::IS_OF_GATEWAYS.contains(&name.as_str()) {
                    warnings.push(format!("config: template {name:?}: {}", custom::Error::GoText));
                    templates.insert(name, Template::GoText);
                }
                continue;
            }
            let overlay =
                Overlay::read(&text).map_err(|source| Error::Template { name: name.clone(), source })?;
            templates.insert(name, Template::Overlay(overlay));
        }
        let values = mesh::yaml::parse(values)
            .map_err(|error| Error::Document { document: "values", why: error.to_string() })?;
        let default_templates = document.default_templates.filter(|names| !names.is_empty());
        Ok(Self {
            policy: document.policy,
            default_templates: default_templates.unwrap_or_else(|| vec![DEFAULT_TEMPLATE.to_owned()]),
            templates,
            aliases: document.aliases.unwrap_or_default(),
            never_inject: document.never_inject_selector.unwrap_or_default(),
            always_inject: document.always_inject_selector.unwrap_or_default(),
            injected_annotations: document.injected_annotations.unwrap_or_default(),
            values: Values(values),
            revision: revision.to_owned(),
            compliance_policy: String::new(),
            platform: String::new(),
            warnings,
        })
    }

    /// The revision by its name.
    #[must_use]
    pub fn revision_name(&self) -> &str {
        if self.revision.is_empty() { "default" } else { &self.revision }
    }
}

/// Helm's values, as the chart hands them on.
#[derive(Clone, Debug, Default)]
pub struct Values(Value);

impl Values {
    /// What stands at a path such as `global.proxy.image`.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        let mut at = &self.0;
        for field in path.split('.') {
            at = at.get(field)?;
        }
        Some(at).filter(|value| !value.is_null())
    }

    /// A single value as text; empty when it is not there.
    pub(crate) fn text(&self, path: &str) -> String {
        self.get(path).map(scalar).unwrap_or_default()
    }

    /// A value that says something: not empty, zero or false.
    pub(crate) fn given(&self, path: &str) -> Option<&Value> {
        self.get(path).filter(|value| match value {
            Value::Null => false,
            Value::Bool(is_on) => *is_on,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        })
    }

    /// Whether a value says something.
    pub(crate) fn is_on(&self, path: &str) -> bool {
        self.given(path).is_some()
    }
}

/// A single value as text.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => String::new(),
    }
}
